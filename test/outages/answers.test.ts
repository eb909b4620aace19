import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { LabFault } from '../support/lab.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { type Backstage, backstageOf, type Ground, type Opened, secondsAfter, startGround, until } from './ground.ts'

/** What a backend may answer instead, what agents then get for a mint, and how the metrics call it. Of a mint and of an end it may be another thing. */
interface Nonsense {
  readonly how: LabFault
  /** Milliseconds of `slow`. */
  readonly ms?: number
  readonly mint: { readonly status: number; readonly code: string; readonly outcome: string }
  /** How an end counts; absent where the fault is about mints only. */
  readonly end?: string
}

const unavailable = (outcome: string) => ({ status: 503, code: 'provider_unavailable', outcome })
const failed = (outcome: string) => ({ status: 502, code: 'provider_failed', outcome })

const nonsense: readonly Nonsense[] = [
  { how: 'slow', ms: 5_500, mint: unavailable('timed_out'), end: 'timed_out' },
  { how: 'half', mint: unavailable('unavailable'), end: 'unavailable' },
  { how: 'fails', mint: unavailable('unavailable'), end: 'unavailable' },
  { how: 'garbage', mint: failed('garbage'), end: 'garbage' },
  { how: 'another media type', mint: failed('garbage'), end: 'garbage' },
  { how: 'floods', mint: failed('garbage'), end: 'garbage' },
  { how: 'redirects', mint: failed('garbage'), end: 'garbage' },
  { how: 'promises it for later', mint: failed('garbage'), end: 'garbage' },
  { how: 'outlives', mint: failed('garbage') },
  { how: 'refuses', mint: failed('refused'), end: 'refused' },
  { how: 'forgets', mint: failed('refused'), end: 'refused' },
]

/** Each with both truths: nothing was done, and it was done and the answer was lost. What is slow is done in the end, and only what exists can outlive. */
const cells = nonsense.flatMap((one) => (['slow', 'outlives'].includes(one.how) ? [true] : [false, true]).map((done) => ({ ...one, done })))
const named = cells.map((cell) => [`${cell.how}, ${cell.done ? 'and it was done' : 'and nothing was done'}`, cell] as const)

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a provider whose answers are nonsense', () => {
  let store: OpenedStore
  let ground: Ground
  let backstage: Backstage

  beforeAll(async () => {
    store = await openDatabase()
    ground = await startGround({ store: store.settings, labTimeout: '5s' })
    backstage = await backstageOf(store, ground)
  })
  afterEach(async () => {
    expect(await backstage.audit()).toEqual([])
  })
  afterAll(async () => {
    await ground.stop()
    await backstage.stop()
    await store.dispose()
  })

  const count = async (call: string, outcome: string) =>
    (await ground.metric(`mayfly_provider_call_seconds_count{provider="lab",call="${call}",outcome="${outcome}"}`)) ?? 0
  const leaseOf = async (task: Pick<Opened, 'id'>) => {
    const ops = await ground.site.token('operator:ops')
    const { leases } = (await ground.call(ops, 'GET', `/tasks/${task.id}`)).body as { leases: Record<string, unknown>[] }
    return leases[0]!
  }
  const settled = async (task: Pick<Opened, 'id'>) => ['revoked', 'failed', 'expired'].includes((await leaseOf(task))['state'] as string)

  test('slow, but in time: nothing is refused and nothing fails', async () => {
    await ground.lab.next('put', 'slow', { ms: 500 })
    await ground.lab.next('delete', 'slow', { ms: 500 })
    const task = await ground.open('crm')
    expect(await ground.complete(task, 30)).toMatchObject({ status: 200, body: { ended: true, leases: [{ state: 'revoked' }] } })
    expect(await ground.lab.alive()).toEqual([])
  })

  // A backend that says `alive: false` and lies has left the contract: nobody would ever hear of what it holds.
  const mints = named.filter(([, { how, done }]) => !(how === 'refuses' && done))
  test.each(mints)('to a mint: %s. No credential is handed out, and none stays alive', async (_, { how, ms, done, mint }) => {
    const before = await count('mint', mint.outcome)
    await ground.lab.next('put', how, { done, ...(ms !== undefined && { ms }) })

    const { status, body } = await ground.declare(['crm'])

    expect({ status, code: body['code'], retry: body['retry'] }).toEqual({ status: mint.status, code: mint.code, retry: 'later' })
    expect(JSON.stringify(body)).not.toMatch(/lab-[\w-]{20}/)
    expect(await count('mint', mint.outcome)).toBe(before + 1)
    await until(async () => await settled({ id: body['task'] as string }))
    // What was only slow is done after the fence of its recovery, and refused.
    await until(async () => (await ground.lab.alive()).length === 0)
  })

  const ends = named.filter(([, { end }]) => end !== undefined)
  test.each(ends)('to an end: %s. It is never called revoked without proof, and done at the next try', async (_, { how, ms, done, end }) => {
    const task = await ground.open('crm')
    const [before, confirmed] = [await count('revoke', end!), await count('revoke', 'ok')]
    await ground.lab.next('delete', how, { done, ...(ms !== undefined && { ms }) })

    expect(await ground.complete(task)).toMatchObject({ status: 202, body: { ended: false } })
    await until(async () => (await count('revoke', end!)) > before)
    const lease = await leaseOf(task)
    if (lease['state'] === 'revoked') expect(await count('revoke', 'ok'), 'only a later answer is a proof').toBeGreaterThan(confirmed)
    else expect(lease).not.toHaveProperty('evidence')

    await secondsAfter(
      ground,
      `an answer that ${how}`,
      async () => {},
      async () => await settled(task),
    )
    expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider', statement: 'DELETE answered 204' } })
    expect(await ground.lab.works(task.secrets[0]!)).toBe(false)
  })

  test('again and again, to every end: revoking with its error and its age, flagged in metrics and readiness, and done within 5 s after it stops', async () => {
    const kinds: readonly LabFault[] = ['half', 'garbage', 'floods', 'redirects', 'promises it for later', 'fails']
    const tasks: Opened[] = []
    for (let each = 0; each < 6; each++) tasks.push(await ground.open('crm'))
    for (let round = 0; round < 20; round++) for (const how of kinds) await ground.lab.next('delete', how)
    for (const task of tasks) expect(await ground.complete(task)).toMatchObject({ status: 202 })

    await until(async () => (await ground.metric('mayfly_provider_up{provider="lab"}')) === 0)
    await until(async () => (await ground.metric('mayfly_leases{state="revoking"}')) === 6)
    const { status, body } = await ground.readyz()
    expect(status).toBe(200)
    expect(body['providers']).toContainEqual({ name: 'lab', state: 'failing' })
    expect(body['oldest_unfinished_revocation_seconds']).toBeGreaterThan(0)
    for (const task of tasks) {
      expect(await leaseOf(task)).toMatchObject({ state: 'revoking' })
      expect(await ground.lab.works(task.secrets[0]!)).toBe(true)
    }

    await secondsAfter(
      ground,
      'answers that were nonsense',
      () => ground.lab.clear(),
      async () => (await ground.lab.alive()).length === 0 && (await ground.metric('mayfly_leases{state="revoking"}')) === 0,
    )
    expect(await ground.metric('mayfly_provider_up{provider="lab"}')).toBe(1)
    for (const task of tasks) expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
  })

  test.each(['refuses', 'forgets'] as const)(
    'that %s every end: the provider lives, and the lease is flagged stuck after the alarm limit, still tried, and revoked in the end',
    async (how) => {
      const task = await ground.open('crm')
      await ground.lab.next('delete', how, { times: 10_000 })
      expect(await ground.complete(task)).toMatchObject({ status: 202 })
      await until(async () => (await leaseOf(task))['error'] !== undefined)

      await backstage.sql`update leases set closing_at = closing_at - interval '6 minutes' where task_id = ${task.id}`

      await until(async () => (await ground.metric('mayfly_stuck_leases')) === 1)
      expect(await ground.metric('mayfly_oldest_unfinished_revocation_seconds')).toBeGreaterThan(300)
      expect(await ground.metric('mayfly_provider_up{provider="lab"}')).toBe(1)
      const { body } = await ground.readyz()
      expect(body).toMatchObject({ status: 'ready', stuck_leases: 1 })
      expect(body['providers']).toContainEqual({ name: 'lab', state: 'ok' })
      expect(await leaseOf(task)).toMatchObject({
        state: 'revoking',
        error: expect.stringContaining('status 40') as unknown,
        stuck_since: expect.any(String) as unknown,
      })
      await secondsAfter(
        ground,
        `a backend that ${how} every end`,
        () => ground.lab.clear(),
        async () => await settled(task),
      )
      expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
      await until(async () => (await ground.metric('mayfly_stuck_leases')) === 0)
    },
  )
})
