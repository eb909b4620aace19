import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { audit } from '../support/audit.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { makeSite, type RunningBroker, type Site } from '../support/program.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { createTripwire, type Wire, wireHttp, wirePostgres } from '../support/tripwire.ts'

interface Held {
  readonly task: { readonly id: string }
  readonly task_token: string
  readonly leases: readonly { readonly id: string; readonly credential: { readonly token: string } }[]
}

/** What is under way when the broker dies. `ends`: what it acknowledges is that the task's outside credential is dead. */
interface Deed {
  readonly name: string
  readonly ends: boolean
  run(task: Held): Promise<number>
}

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a broker that is killed at any statement and any request', () => {
  const tripwire = createTripwire()
  let store: OpenedStore
  let lab: Lab
  let wires: Wire[]
  let site: Site
  let broker: RunningBroker
  let owner: postgres.Sql
  let ledger: Ledger
  const tokens = { bot: '', ops: '' }
  const secrets: string[] = []

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openDatabase(), startLab()])
    const { url } = store.settings as { url: string }
    ledger = await connect(store.settings)
    owner = postgres(url, { max: 1, onnotice: () => {} })
    wires = [await wirePostgres(url, tripwire), await wireHttp(lab.url, tripwire)]
    site = await makeSite({ store: { url: wires[0]!.url }, lab: wires[1]!.url })
    broker = await site.start()
    Object.assign(tokens, { bot: await site.token('agent:bot'), ops: await site.token('operator:ops') })
  })
  afterAll(async () => {
    expect(await broker.stop()).toBe(0)
    await Promise.all([owner.end(), ledger.close(), lab.stop(), ...wires.map((wire) => wire.stop())])
    await site.remove()
    await store.dispose()
  })

  async function post(token: string, path: string, body: object, headers: Record<string, string> = {}): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(broker.url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
    return { status: answer.status, body: await answer.json() }
  }

  const declaration = {
    kind: 'work',
    purpose: 'a crash',
    duration: '10m',
    grants: [{ name: 'api' }, { name: 'crm', parameters: { customer: 'acme' } }],
  }

  async function declare(headers: Record<string, string> = {}): Promise<Held> {
    const { status, body } = await post(tokens.bot, '/tasks', declaration, headers)
    if (status !== 201) throw new Error(`declared: ${status} ${JSON.stringify(body)}`)
    const held = body as Held
    secrets.push(held.task_token, ...held.leases.map(({ credential }) => credential.token))
    return held
  }

  const status = async (answer: Promise<{ status: number }>): Promise<number> => (await answer).status
  const deeds: readonly Deed[] = [
    { name: 'complete', ends: true, run: (task) => status(post(task.task_token, `/tasks/${task.task.id}/complete`, {})) },
    { name: 'revoke', ends: true, run: (task) => status(post(tokens.ops, `/tasks/${task.task.id}/revoke`, { reason: 'a crash' })) },
    { name: 'refresh', ends: false, run: (task) => status(post(tokens.bot, `/leases/${task.leases[0]!.id}/refresh`, {})) },
  ]

  /** Starts another broker after a kill, at a time when every claim and every patience of the dead one is over. */
  async function recover(): Promise<void> {
    tripwire.disarm()
    await broker.kill()
    await owner`update leases set due_at = now() where state in ('reserved', 'revoking')`
    await owner`update idempotency_keys set busy_until = null`
    broker = await site.start()
    while ((await owner`select 1 from leases where state in ('reserved', 'revoking')`).length > 0);
  }

  /** What must hold after every kill, by the backend's own truth. */
  async function check(): Promise<void> {
    const alive = (await lab.alive()).map(({ lease }) => lease)
    const known = await owner`select id from leases where state = 'active' and id in ${owner(['', ...alive])}`
    expect(known.length, 'every living credential is active in the ledger').toBe(alive.length)
    expect(await audit(ledger, secrets)).toEqual([])
  }

  /** Commits and requests. Of the reaper's looks only the one that closes what is overdue: the others find nothing here, and come whenever they like. */
  const counts = (what: string): boolean => /backend|a commit/.test(what) || (what.includes('reaper') && what.includes('task.closing'))

  /** Kills at the crossing number `at`, and starts another broker. @returns where it was killed; undefined where the deed was through before */
  async function killAt(at: number, deed: () => Promise<void>): Promise<string | undefined> {
    tripwire.arm(() => void broker.process.kill('SIGKILL'), at, counts)
    await deed()
    const where = tripwire.struck() ? tripwire.crossings().at(-1) : undefined
    await recover()
    return where
  }

  /** One crossing after the other, until the deed is through twice without coming that far: the reaper's own looks make its length vary. */
  async function matrix(name: string, cell: (at: number) => Promise<string | undefined>): Promise<void> {
    let through = 0
    let at = 1
    for (; through < 2; at++) {
      const where = await cell(at)
      through = where === undefined ? through + 1 : 0
      console.log(`${name}, crossing ${at}: ${where === undefined ? 'killed after the answer' : `killed ${where}`}`)
      await check()
    }
    expect(at, 'every commit and request has two sides').toBeGreaterThan(4)
  }

  test('while it declares, leaves nothing alive that the ledger does not know, and the same Idempotency-Key heals it', async () => {
    let round = 0
    await matrix('declare', async (at) => {
      const headers = { 'idempotency-key': `crash-${round++}` }
      let answered: Held | undefined
      const where = await killAt(at, async () => void (answered = await declare(headers).catch(() => undefined)))
      if (answered) expect(await lab.works(answered.leases[1]!.credential.token), 'what was acknowledged is not forgotten').toBe(true)
      const task = answered ?? (await declare(headers))
      expect(await lab.works(task.leases[1]!.credential.token)).toBe(true)
      expect(await status(post(task.task_token, `/tasks/${task.task.id}/complete`, {}))).toBe(200)
      expect(await lab.alive(), 'nothing is alive after its task').toEqual([])
      return where
    })
  }, 240_000)

  test.each(deeds)('while it has to $name, forgets neither the end nor what goes on', { timeout: 240_000 }, async ({ name, ends, run }) => {
    await matrix(name, async (at) => {
      const task = await declare()
      const secret = task.leases[1]!.credential.token
      let answered: number | undefined
      const where = await killAt(at, async () => void (answered = await run(task).catch(() => undefined)))
      if (answered === undefined) expect(await run(task), 'asking again is enough').toBe(200)
      else expect(answered).toBe(200)
      expect(await lab.works(secret)).toBe(!ends)
      expect(await status(post(task.task_token, `/tasks/${task.task.id}/complete`, {}))).toBe(200)
      expect(await lab.alive(), 'nothing is alive after its task').toEqual([])
      return where
    })
  })
})
