import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { BrokerError, ConfigurationError } from '../../src/base/errors.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { type PolicyInForce, putInForce } from '../../src/tasks/policy.ts'
import type { ActivePolicy } from '../../src/tasks/task.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { loadPolicy } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('policies that are reloaded over $name', ({ open }) => {
  let folder: string
  let store: OpenedStore
  let ledger: Ledger
  let sets: { old: ActivePolicy; tight: ActivePolicy; tighter: ActivePolicy }

  const forbidding = (id: string) => loadPolicy(folder, { policies: `@id("${id}")\nforbid(principal, action, resource);\n` })

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-policy-'))
    store = await open()
    ledger = await connect(store.settings)
    sets = { old: await loadPolicy(folder), tight: await forbidding('tight'), tighter: await forbidding('tighter') }
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  /** What the broker has of its store, and what it finds when it loads its files. */
  let given: { away: boolean; tries: number; load: () => Promise<ActivePolicy> }
  let policy: PolicyInForce
  let reloads: (outcome: string) => Promise<number>
  const inForce = () => policy.current().set.digest
  const activated = async () => {
    const { items } = await listEntries(ledger, { kind: 'policy.activated' }, { limit: 50 })
    return items.map(({ body }) => (body as { policy_digest: string }).policy_digest)
  }

  beforeEach(async () => {
    given = { away: false, tries: 0, load: async () => sets.tight }
    const between: Ledger = {
      ...ledger,
      async run(...asked) {
        given.tries++
        if (given.away) throw new BrokerError('store_unavailable', 'The ledger cannot be read or written')
        return await ledger.run(...asked)
      },
    }
    const telemetry = createTelemetry({ level: 'info', destination: new Writable({ write: (_, __, done) => done() }) })
    reloads = async (outcome) => (await telemetry.metrics.policyReloads.get()).values.find(({ labels }) => labels.outcome === outcome)?.value ?? 0
    policy = await putInForce(sets.old, () => given.load(), between, telemetry)
  })
  afterEach(async () => {
    vi.useRealTimers()
    await policy.stop()
  })

  test('are in force as soon as a store that was away at the reload is back, without another signal', async () => {
    given.away = true
    await policy.reload()
    expect([inForce(), await reloads('waiting'), await reloads('refused')]).toEqual([sets.old.set.digest, 1, 0])
    await expect.poll(() => given.tries, { timeout: 10_000 }).toBeGreaterThan(3)
    expect([inForce(), await reloads('waiting'), await reloads('activated')]).toEqual([sets.old.set.digest, 1, 0])

    given.away = false

    await expect.poll(inForce, { timeout: 10_000 }).toBe(sets.tight.set.digest)
    expect([await reloads('activated'), await reloads('waiting'), (await activated())[0]]).toEqual([1, 1, sets.tight.set.digest])
  })

  test('that wait for the store give way to later files, and to faulty ones do not', async () => {
    given.away = true
    await policy.reload()
    given.load = async () => sets.tighter
    await policy.reload()
    given.load = async () => await Promise.reject(new ConfigurationError(['a fault']))
    await policy.reload()
    expect([await reloads('waiting'), await reloads('refused')]).toEqual([2, 1])
    const before = (await activated()).length

    given.away = false

    await expect.poll(inForce, { timeout: 10_000 }).toBe(sets.tighter.set.digest)
    await policy.stop()
    expect([(await activated()).length, await reloads('activated'), inForce()]).toEqual([before + 1, 1, sets.tighter.set.digest])
  })

  test('are not tried again once the broker stops', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    given.away = true
    await policy.reload()
    expect(vi.getTimerCount()).toBe(1)

    await policy.stop()

    expect(vi.getTimerCount()).toBe(0)
    const { tries } = given
    await policy.reload()
    expect(given.tries).toBe(tries)
  })
})
