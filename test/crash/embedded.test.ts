import { existsSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect } from '../../src/ledger/connect.ts'
import { audit } from '../support/audit.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openEmbedded } from '../support/stores.ts'
import { type Answer, declarationOf, type Held } from './held.ts'

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
  async function post(broker: RunningBroker, where: string, body: object): Promise<{ status: number; body: unknown } | undefined> {
    const headers = { authorization: `Bearer ${bot}`, 'content-type': 'application/json', prefer: 'wait=30' }
    try {
      const answer = await fetch(broker.url + where, { method: 'POST', headers, body: JSON.stringify(body) })
      return { status: answer.status, body: await answer.json() }
    } catch {
      return undefined
    }
  }

  const declare = (broker: RunningBroker) => post(broker, '/tasks', declarationOf(['api', 'crm'])) as Promise<Answer<Held> | undefined>
  const complete = (broker: RunningBroker, { task }: Held) => post(broker, `/tasks/${task.id}/complete`, {})

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
      let logs = ''

      /** Declares, and completes every other task, until nobody answers. */
      async function agent(broker: RunningBroker, enough: () => void): Promise<void> {
        for (let count = 0; ; count++) {
          const declared = await declare(broker)
          if (!declared) return
          expect(declared.status, JSON.stringify(declared.body)).toBe(201)
          open.set(declared.body.task.id, declared.body)
          secrets.push(declared.body.task_token, ...declared.body.leases.map(({ credential }) => credential.token))
          enough()
          if (count % 2 === 0) continue
          // From here on it may have ended, whether the answer arrives or not.
          open.delete(declared.body.task.id)
          const completed = await complete(broker, declared.body)
          if (completed?.status === 200) ended.add(declared.body.task.id)
        }
      }

      for (const acknowledged of [7, 18, 31]) {
        const broker = await site.start()
        const before = secrets.length
        const enough = () => secrets.length - before >= acknowledged * 3 && broker.process.kill('SIGKILL')
        await Promise.all(Array.from({ length: 8 }, () => agent(broker, enough)))
        await broker.kill()
        logs += broker.log()

        const ledger = await connect({ embedded })
        const tasks = new Map((await ledger.run<{ id: string; state: string }>(sql`select id, state from tasks`)).map(({ id, state }) => [id, state]))
        const leases = new Map(
          (await ledger.run<{ id: string; state: string }>(sql`select id, state from leases`)).map(({ id, state }) => [id, state]),
        )
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
      await ledger.run(sql`
      with late as (update tasks set deadline = now() where state = 'open' returning id)
      update leases set expires_at = least(expires_at, now()) where task_id in (select id from late)`)
      await ledger.close()
      const last = await site.start()
      while ((await lab.alive()).length > 0);
      await last.stop()
      logs += broker.log() + last.log()
      for (const secret of secrets) expect(logs.includes(secret), 'a secret in a log').toBe(false)
      const after = await connect({ embedded })
      expect(await audit(after, secrets)).toEqual([])
      await after.close()
      console.log(`the embedded store under load: 3 kills, ${secrets.length / 3} tasks acknowledged, ${ended.size} ends acknowledged`)
      await store.dispose()
    },
  )

  test.each([
    ['most of the cluster is copied', 'postgres.new/base/5/2600'],
    ['the cluster looks whole', 'postgres.new/PG_VERSION'],
    ['the cluster is in its place', 'postgres'],
    ['the first table is made', 'postgres/base/5/16386'],
  ])('that is killed at its very first start, when %s, starts the next time', { timeout: 120_000 }, async (_, file) => {
    await siteOn('./store')
    const first = await site.launch()
    // There is nothing to wait on but the folder itself. Not without a pause: the start needs the processor.
    while (!existsSync(path.join(site.folder, 'store', file))) await pause(2)
    await first.kill()

    const second = await site.start()

    const declared = await declare(second)
    expect(declared?.status).toBe(201)
    expect((await complete(second, declared!.body))?.status).toBe(200)
    expect(await second.stop()).toBe(0)
    const ledger = await connect({ embedded: path.join(site.folder, 'store') })
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
