import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect } from '../../src/ledger/connect.ts'
import { audit } from '../support/audit.ts'
import { deadlinePasses } from '../support/deadline.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openEmbedded } from '../support/stores.ts'
import { accepted, type Answer, api, declarationOf, type Held, type HeldLease } from './held.ts'

/** Of every answer: the entries that the ledger has of it. */
interface Told {
  readonly receipts: readonly { readonly entry: string }[]
}

describe('a broker on the embedded store', () => {
  let lab: Lab
  let site: Site
  let bot: string

  beforeEach(async () => {
    lab = await startLab()
  })
  afterEach(async () => {
    await lab.stop()
    await site.remove()
  })

  async function siteOn(embedded: string): Promise<void> {
    site = await makeSite({ store: { embedded }, lab: lab.url })
    bot = await site.token('agent:bot')
  }

  /** @returns undefined where the answer was lost */
  async function post<Body>(broker: RunningBroker, where: string, body: object = {}): Promise<Answer<Body & Told> | undefined> {
    const headers = { authorization: `Bearer ${bot}`, 'content-type': 'application/json', prefer: 'wait=30' }
    try {
      const answer = await fetch(broker.url + where, { method: 'POST', headers, body: JSON.stringify(body) })
      return { status: answer.status, body: (await answer.json()) as Body & Told }
    } catch {
      return undefined
    }
  }

  const declare = (broker: RunningBroker) => post<Held>(broker, '/tasks', declarationOf(['api', 'crm']))
  const complete = (broker: RunningBroker, { task }: Held) => post(broker, `/tasks/${task.id}/complete`)

  test(
    'that is killed under load forgets nothing that it acknowledged, and leaves nothing alive that its ledger does not know',
    { timeout: 120_000 },
    async () => {
      const store = await openEmbedded()
      const { embedded } = store.settings as { embedded: string }
      await siteOn(embedded)
      const open = new Map<string, Held>()
      const ended = new Set<string>()
      const secrets: string[] = []
      /** Entries that an answer had receipts of. */
      const told = new Set<string>()
      let declarations = 0
      let logs = ''

      /** What was acknowledged. */
      function heard<Body extends Told>(answer: Answer<Body>, expected: number): Body {
        const body = accepted(answer, expected)
        for (const { entry } of body.receipts) told.add(entry)
        return body
      }

      /** Declares; completes every other task, and asks for more time of the rest; until nobody answers. */
      async function agent(broker: RunningBroker, enough: () => void): Promise<void> {
        for (let count = 0; ; count++) {
          const declared = await declare(broker)
          if (!declared) return
          const held = heard(declared, 201)
          declarations++
          open.set(held.task.id, held)
          secrets.push(held.task_token, ...held.leases.map(({ credential }) => credential.token))
          enough()
          if (count % 2 === 0) {
            await prolong(broker, held)
            continue
          }
          // From here on it may have ended, whether the answer arrives or not.
          open.delete(held.task.id)
          const completed = await complete(broker, held)
          if (!completed) return
          heard(completed, 200)
          ended.add(held.task.id)
        }
      }

      async function prolong(broker: RunningBroker, held: Held): Promise<void> {
        const [renewed, refreshed] = await Promise.all([
          post(broker, `/tasks/${held.task.id}/renew`, { duration: '25m' }),
          post<{ lease: HeldLease }>(broker, `/leases/${api(held).id}/refresh`),
        ])
        if (renewed) heard(renewed, 200)
        if (refreshed) secrets.push(heard(refreshed, 200).lease.credential.token)
      }

      for (const acknowledged of [7, 18, 31]) {
        const broker = await site.start()
        const last = declarations + acknowledged
        const enough = () => declarations >= last && broker.process.kill('SIGKILL')
        await Promise.all(Array.from({ length: 8 }, () => agent(broker, enough)))
        await broker.kill()
        logs += broker.log()

        const ledger = await connect({ embedded })
        const entries = new Set((await ledger.run<{ id: string }>(sql`select id from entries`)).map(({ id }) => id))
        expect(
          [...told].filter((entry) => !entries.has(entry)),
          'entries that an answer had receipts of',
        ).toEqual([])
        const tasks = new Map((await ledger.run<{ id: string; state: string }>(sql`select id, state from tasks`)).map(({ id, state }) => [id, state]))
        const leases = new Map(
          (await ledger.run<{ id: string; state: string }>(sql`select id, state from leases`)).map(({ id, state }) => [id, state]),
        )
        // Of 18 declarations at least one agent of eight made three, and had the answer to a completion before its third.
        if (acknowledged > 16) expect(ended.size, 'acknowledged ends').toBeGreaterThan(0)
        for (const task of ended) expect(tasks.get(task), 'an acknowledged end').toBe('completed')
        for (const { task, leases: held } of open.values()) {
          expect(tasks.get(task.id), 'an acknowledged task').toBe('open')
          for (const { id } of held) expect(leases.get(id), 'an acknowledged lease').toBe('active')
        }
        for (const { lease, task } of await lab.alive()) {
          expect(['reserved', 'active', 'revoking'], 'a living credential').toContain(leases.get(lease))
          expect(['open', 'closing'], 'the task of a living credential').toContain(tasks.get(task))
        }
        expect(await audit(ledger, secrets)).toEqual([])
        await ledger.run(sql`update leases set due_at = now() where state in ('reserved', 'revoking')`)
        await ledger.close()
      }

      const broker = await site.start()
      for (const task of open.values()) {
        for (const { grant, credential } of task.leases) if (grant === 'crm') expect(await lab.works(credential.token)).toBe(true)
        expect((await complete(broker, task))?.status).toBe(200)
      }
      await broker.stop()
      // What nobody knows the token of ends at its deadline.
      const ledger = await connect({ embedded })
      await ledger.run(sql.raw(deadlinePasses()))
      await ledger.close()
      const last = await site.start()
      while ((await lab.alive()).length > 0);
      await last.stop()
      logs += broker.log() + last.log()
      for (const secret of secrets) expect(logs.includes(secret), 'a secret in a log').toBe(false)
      const after = await connect({ embedded })
      expect(await audit(after, secrets)).toEqual([])
      await after.close()
      console.log(
        `the embedded store under load: 3 kills, ${declarations} tasks acknowledged, ${ended.size} ends, ${told.size} entries of all answers`,
      )
      await store.dispose()
    },
  )

  /** Moments of a first start, in their order, by what is then in its folder. */
  const moments = [
    ['most of the cluster is copied', 'postgres.new/base/5/2600'],
    ['the cluster looks whole', 'postgres.new/PG_VERSION'],
    ['the cluster is in its place', 'postgres'],
    ['the first table is made', 'postgres/base/5/16386'],
  ] as const

  test.each(moments)('that is killed at its very first start, when %s, starts the next time', { timeout: 120_000 }, async (moment, file) => {
    await siteOn('./store')
    const folder = path.join(site.folder, 'store')
    const isThere = (name: string) => existsSync(path.join(folder, name))

    /** @returns the moment at which it was killed */
    async function killFirst(): Promise<string | undefined> {
      await rm(folder, { recursive: true, force: true })
      const first = await site.launch()
      // There is nothing to wait on but the folder itself. Not without a pause: the start needs the processor.
      while (!isThere(file)) await pause(2)
      await first.kill()
      // Whoever was so late that it is ready has no moment of its first start.
      if (first.log() !== '') return undefined
      return moments.findLast(([, name]) => isThere(name))?.[0]
    }
    // A moment takes some 50 ms: on a busy machine whoever looks may be late, and then has another first start.
    while ((await killFirst()) !== moment);

    const second = await site.start()

    const declared = await declare(second)
    expect(declared?.status).toBe(201)
    expect((await complete(second, declared!.body))?.status).toBe(200)
    expect(await second.stop()).toBe(0)
    const ledger = await connect({ embedded: folder })
    expect(await audit(ledger)).toEqual([])
    await ledger.close()
  })

  test('keeps a second one out of its folder, and is none the worse for it', async () => {
    const store = await openEmbedded()
    const { embedded } = store.settings as { embedded: string }
    await siteOn(embedded)
    const first = await site.start()
    const declared = await declare(first)

    const second = await mayfly(['serve', '--config', site.config()])

    expect(second).toMatchObject({ status: 1, stderr: expect.stringContaining(`store.embedded: ${embedded} is in use by another broker`) as unknown })
    expect((await complete(first, declared!.body))?.status).toBe(200)
    expect((await declare(first))?.status).toBe(201)
    expect(await first.stop()).toBe(0)
    const ledger = await connect({ embedded })
    expect(await audit(ledger)).toEqual([])
    await ledger.close()
    await store.dispose()
  })
})
