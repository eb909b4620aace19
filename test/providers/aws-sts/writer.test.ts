import { afterEach, describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../../src/base/errors.ts'
import type { Probed, Sts } from '../../../src/providers/aws-sts/client.ts'
import { canariesOf, createCanary } from '../../../src/providers/aws-sts/kill-list/canary.ts'
import { createWatch } from '../../../src/providers/aws-sts/kill-list/watch.ts'
import { ProviderError } from '../../../src/providers/provider.ts'
import { digestOf } from '../../../src/providers/aws-sts/kill-list/world.ts'
import type { Rounds } from '../../../src/providers/aws-sts/kill-list/rounds.ts'
import { dice, role, Stage } from '../../support/aws/staged.ts'

afterEach(() => void vi.restoreAllMocks())

const patient = new AbortController().signal

/** Ends a lease at one broker: denied in the store, then in force. */
async function end(stage: Stage, broker: Rounds, lease: string): Promise<void> {
  await stage.store.deny('aws', lease)
  await broker.covering(patient)
  expect(stage.store.sessions.find((session) => session.lease === lease)?.confirmedAt, 'whoever waited is told no sooner').toBeDefined()
}

/** What the reaper has a broker do every second, with as much time as it gives it. */
async function tend(stage: Stage, broker: Rounds, over: AbortSignal): Promise<void> {
  while (!over.aborted) {
    await stage.pause(1_000)
    if ((await stage.store.due()).length === 0) continue
    const enough = new AbortController()
    void stage.pause(10_000).then(() => enough.abort())
    await broker.covering(enough.signal).catch(() => {})
  }
}

/** What is due is done, by one broker, until nothing is. */
async function settle(stage: Stage, broker: Rounds): Promise<void> {
  for (let round = 0; round < 20 && (await stage.store.due()).length > 0; round += 1) {
    stage.now += 1_200
    await stage.until(broker.covering(patient))
  }
  expect(await stage.store.due()).toEqual([])
}

/** A further hundred is played on Postgres, in test/races/aws.test.ts. */
const orders = 1_000

describe('two brokers that write one kill list', () => {
  test('lose no end in any order of what they do, whatever is late, lost or taken over', async () => {
    const met = { repaired: 0, lost: 0, takenOver: 0 }
    for (let seed = 1; seed <= orders; seed += 1) {
      const stage = new Stage()
      const random = dice(seed)
      vi.spyOn(Math, 'random').mockImplementation(random)
      stage.choose = (many) => Math.floor(random() * many)
      stage.mishap = () => (random() < 0.85 ? 'none' : (met.lost++, random() < 0.5 ? 'done' : 'not done'))
      stage.seen = (generation) => {
        for (const session of stage.store.sessions)
          if (session.generation !== undefined && session.generation <= generation)
            expect([seed, session.name, stage.denies(session.name)]).toEqual([seed, session.name, true])
      }
      const brokers = [stage.broker('a'), stage.broker('b')]
      const ends: Promise<void>[] = []
      for (let move = 0; move < 60; move += 1) {
        const roll = random()
        const { generation, written } = stage.store.list(role)
        if (random() < (generation > 0 && !written ? 0.15 : 0.02)) {
          // Longer than a claim: whoever holds the list holds it no more, in the middle of whatever it does.
          stage.now += 31_000
          await stage.stall(25)
          met.takenOver += 1
        } else if (roll < 0.3) await stage.take()
        else if (roll < 0.45) {
          const living = stage.store.sessions.filter(({ denied }) => !denied)
          const chosen = living[Math.floor(random() * living.length)]
          if (chosen) ends.push(end(stage, brokers[move % 2]!, chosen.lease))
        } else await stage.step()
      }
      const over = new AbortController()
      for (const broker of brokers) void tend(stage, broker, over.signal)
      await stage.until(Promise.all(ends))
      over.abort()
      for (const session of stage.store.sessions.filter(({ denied }) => denied)) expect([seed, session.confirmedAt]).not.toContain(undefined)

      // What was late has landed by now; what it landed on is looked at within a minute.
      while (await stage.step());
      stage.now += 60_000
      await settle(stage, brokers[0]!)
      const { text } = stage.documents.at(-1)!
      expect([seed, digestOf(text)]).toEqual([seed, stage.store.list(role).digest])
      for (const { name, denied } of stage.store.sessions) expect([seed, name, stage.denies(name)]).toEqual([seed, name, denied])
      met.repaired += stage.noticed.filter(({ event }) => event === 'kill_list_drift').length
    }
    expect(met.repaired).toBeGreaterThan(10)
    expect(met.lost).toBeGreaterThan(50)
    expect(met.takenOver).toBeGreaterThan(100)
  }, 120_000)

  test('find what one of them wrote after its time was up, write over it, and say so', async () => {
    const stage = new Stage()
    const [slow, quick] = [stage.broker('slow'), stage.broker('quick')]
    const [first, second] = [(await stage.take())!, (await stage.take())!]
    const slowly = end(stage, slow, first.lease)
    // It has read the store and said what it will write; the write itself is on its way.
    while (stage.store.intents.length === 0) await stage.step()
    await stage.stall(40)
    stage.now += 31_000
    await stage.until(end(stage, quick, second.lease))
    expect([stage.denies(first.name), stage.denies(second.name)]).toEqual([true, true])
    expect(stage.documents.length).toBe(2)

    await stage.until(slowly)
    expect(stage.documents.length, 'the late one').toBe(3)
    expect([stage.denies(first.name), stage.denies(second.name)]).toEqual([true, false])
    await settle(stage, quick)
    expect([stage.denies(first.name), stage.denies(second.name)]).toEqual([true, true])
    expect(stage.noticed.map(({ event }) => event)).toContain('kill_list_drift')
  })
})

describe('the writer of a kill list', () => {
  test('writes at once after a pause, and no more than ten documents for a thousand ends at a hundred a second', async () => {
    const stage = new Stage()
    const brokers = [stage.broker('a'), stage.broker('b')]
    const names: string[] = []
    const waits: number[] = []
    const ends: Promise<void>[] = []
    for (let count = 0; count < 1_000; count += 1) {
      const { lease, name } = (await stage.take())!
      names.push(name)
      const asked = stage.now
      ends.push(end(stage, brokers[count % 2]!, lease).then(() => void waits.push(stage.now - asked)))
      await stage.until(stage.pause(10))
    }
    await stage.until(Promise.all(ends))
    expect(waits[0], 'the first').toBe(0)
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_500)
    expect(stage.documents.length - 1).toBeLessThanOrEqual(10)
    for (const name of names) expect(stage.denies(name)).toBe(true)
    while (await stage.step());
    const asked = (action: string) => stage.asked.filter((one) => one === action).length
    expect(asked('CreatePolicyVersion'), 'each finds room').toBe(stage.documents.length - 1)
    expect(asked('ListPolicyVersions'), 'once a broker').toBeLessThanOrEqual(2)
    expect(asked('DeletePolicyVersion')).toBeLessThanOrEqual(stage.documents.length - 1)
  })

  test('waits for nothing that clears up behind a document: the next is written at its time', async () => {
    const stage = new Stage()
    const broker = stage.broker('a')
    const began = stage.now
    for (const action of ['ListPolicyVersions', 'DeletePolicyVersion']) stage.silent.add(action)
    for (let document = 0; document < 4; document += 1) await stage.until(end(stage, broker, (await stage.take())!.lease))
    expect(stage.now - began).toBe(3 * 1_200)
    expect(
      stage.asked.filter((action) => stage.silent.has(action)),
      'one at a time',
    ).toEqual(['ListPolicyVersions'])
  })

  test('begins a document when the pause is over, however long it was looked meanwhile whether another has served those who wait', async () => {
    const stage = new Stage()
    const broker = stage.broker('a')
    const [first, second] = [(await stage.take())!, (await stage.take())!]
    const began = stage.now
    await stage.until(end(stage, broker, first.lease))
    // Each call takes 10 ms from here on.
    stage.slowness = 10
    await stage.until(end(stage, broker, second.lease))
    // The list is taken, the document meant, and on its way to AWS.
    expect(stage.documents.at(-1)!.from - began).toBeLessThanOrEqual(1_260)
    expect(stage.documents.at(-1)!.from - began).toBeGreaterThanOrEqual(1_200)
  })

  test.each([0, 4_000, 20_000])('sees every document in force under steady load, where AWS takes %s ms to heed one', async (propagation) => {
    const stage = new Stage()
    stage.propagation = propagation
    const broker = stage.broker('a')
    const waits: number[] = []
    const ends: Promise<void>[] = []
    for (let count = 0; count < 400; count += 1) {
      const { lease, name } = (await stage.take())!
      const asked = stage.now
      const ended = end(stage, broker, lease).then(() => {
        expect(stage.denies(name)).toBe(true)
        waits.push(stage.now - asked)
      })
      ends.push(ended)
      await stage.until(stage.pause(100))
    }
    await stage.until(Promise.all(ends))
    expect(Math.max(...waits)).toBeLessThanOrEqual(propagation + 1_200 + 5_000)
  })

  test('climbs the ladder in its order, never fails to write, and denies the living only where it says so', async () => {
    const stage = new Stage()
    stage.capacity = 819
    const broker = stage.broker('a')
    const taken: { readonly lease: string; readonly name: string }[] = []
    const take = async (count: number, answered: boolean) => {
      for (let each = 0; each < count; each += 1) taken.push((await stage.take(36_000_000, answered))!)
    }
    const endNext = async (count: number) => {
      for (const { lease } of taken.splice(0, count)) {
        await stage.until(end(stage, broker, lease))
        stage.now += 1_200
        check()
      }
    }
    const closeCohort = async () => {
      await stage.store.take('aws', role, 'a', 0)
      await stage.store.closeCohort('aws', role, 'a')
      await stage.store.release('aws', role, 'a')
    }
    function check(): void {
      const sacrificed = new Set(stage.store.intents.flatMap((intent) => intent.sacrificed))
      for (const { name, denied, takenAt, lease } of stage.store.sessions) {
        expect([name, stage.denies(name, takenAt)]).toEqual([name, denied])
        // Whoever still has it, and nobody ended.
        if (taken.some((left) => left.lease === lease)) expect([name, denied]).toEqual([name, sacrificed.has(name)])
      }
    }
    const rung = () => stage.store.intents.at(-1)!.rung

    await take(30, true)
    await endNext(20)
    expect(rung(), 'one by one').toBe(1)
    await take(6, true)
    await take(30, true)
    await endNext(32)
    expect(
      stage.store.intents.map((intent) => intent.rung),
      'as a cohort with survivors',
    ).toContain(2)
    // Named right behind it, and alive.
    await take(3, true)
    check()
    for (let cohort = 0; cohort < 20 && rung() < 4; cohort += 1) {
      taken.length = 0
      await closeCohort()
      await take(12, true)
      await endNext(6)
    }
    expect(rung(), 'a cohort without survivors').toBe(4)
    for (let cohort = 0; cohort < 80 && rung() < 5; cohort += 1) {
      taken.length = 0
      await closeCohort()
      await take(1, true)
      await endNext(1)
    }
    expect(rung(), 'by age').toBe(5)
    for (let cohort = 0; cohort < 80 && rung() < 6; cohort += 1) {
      taken.length = 0
      await closeCohort()
      await take(1, false)
      await endNext(1)
    }
    expect(rung(), 'everybody').toBe(6)
    expect(await stage.take()).toBeUndefined()

    const told = stage.noticed.filter(({ event }) => event === 'kill_list_rung').map(({ detail }) => (detail as { rung: number }).rung)
    expect([...new Set(told)], 'each when it is first taken').toEqual([2, 1, 4, 5, 6])
    expect(
      told.every((now, at) => now !== told[at - 1]),
      'once a change',
    ).toBe(true)
    expect(stage.noticed.map(({ event }) => event)).not.toContain('kill_list_not_written')
  })
})

describe('a generation of a kill list', () => {
  test('is looked for at once, after 250 ms, 500 ms and so on, and at last every 5 s', async () => {
    const pauses: number[] = []
    let looks = 0
    const watch = createWatch({ inForce: async () => ++looks > 8, confirm: async () => {}, pause: async (ms) => void pauses.push(ms) })
    await watch.until(1, false)
    expect(pauses).toEqual([250, 500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000])
  })

  test('is looked for by nobody any more once a later one is known to be in force', async () => {
    const stage = new Stage()
    const looked: number[] = []
    const watch = createWatch({
      inForce: async (generation) => (looked.push(generation), generation === 2),
      confirm: async () => {},
      pause: stage.pause,
    })
    await stage.until(Promise.all([watch.until(1, false), watch.until(2, false)]))
    expect(looked).toEqual([1, 2])
    watch.known(7)
    await watch.until(7, false)
    expect(looked).toEqual([1, 2])
  })

  test('is looked for again where the store could not be told, or AWS said nothing', async () => {
    const faults = [new ProviderError('timed_out', 'aws gave no answer', 'maybe'), new BrokerError('store_unavailable', 'the store is away')]
    const troubles: string[] = []
    const watch = createWatch({
      inForce: async () => true,
      confirm: async () => {
        const fault = faults.shift()
        if (fault) throw fault
      },
      pause: async () => void troubles.push(watch.trouble),
    })
    await watch.until(1, false)
    expect(troubles).toEqual([': aws gave no answer', ': store_unavailable: the store is away'])
  })
})

describe('the canary of a role', () => {
  const inForce = async (verdicts: Record<string, Probed>, shut = false): Promise<boolean> => {
    const sts = {
      assumeRole: async ({ sessionName }: { sessionName: string }) => ({ accessKeyId: sessionName }),
      probeOf:
        ({ accessKeyId }: { accessKeyId: string }) =>
        async () =>
          verdicts[accessKeyId]!,
    } as unknown as Sts
    return await createCanary(sts, 'arn:aws:iam::123456789012:role/r', () => 0).isInForce(3, 'salt', shut, patient)
  }

  test.each<[string, Probed, Probed, boolean]>([
    ['may do what it asks', 'allowed', 'allowed', false],
    ['is denied, and one on no list is not', 'denied', 'allowed', true],
    ['is denied, and one on no list may only not ask', 'denied', 'refused', true],
    ['is refused without a word, and one on no list may ask', 'refused', 'allowed', true],
    ['is refused like one on no list, for the role has no right to ask', 'refused', 'refused', false],
    ['is denied like one on no list, by a policy of somebody else', 'denied', 'denied', false],
  ])('that %s: in force or not', async (_, canary, control, expected) => {
    expect(await inForce({ '@3-salt': canary, '@0-salt': control })).toBe(expected)
  })

  test('has a name that the list of another store cannot hold', () => {
    const [ours, theirs] = [canariesOf(9, 'aaaaaaaa'), canariesOf(9, 'bbbbbbbb')]
    expect(ours).toHaveLength(8)
    expect(ours.filter((name) => theirs.includes(name))).toEqual([])
  })

  test.each<[Probed, boolean]>([
    ['denied', true],
    ['refused', false],
    ['allowed', false],
  ])('needs nobody to be compared with where the role is shut, but a deny in so many words: one that is %s', async (verdict, expected) => {
    expect(await inForce({ '@3-salt': verdict, '@0-salt': verdict }, true)).toBe(expected)
  })

  test.each([
    ['throttles, and keeps its sessions', 'Throttling', 2],
    ['does not know its session any more, and has others', 'ExpiredToken', 4],
  ])('asks an AWS that %s', async (_, answer, assumed) => {
    let count = 0
    const sts = {
      assumeRole: async () => void (count += 1),
      probeOf: () => () => Promise.reject(new ProviderError('unavailable', 'aws did not answer', 'no', { cause: { name: answer } })),
    } as unknown as Sts
    const canary = createCanary(sts, 'arn:aws:iam::123456789012:role/r', () => 0)
    for (let look = 0; look < 2; look += 1) await expect(canary.isInForce(3, 'salt', false, patient)).rejects.toBeInstanceOf(ProviderError)
    expect(count).toBe(assumed)
  })

  test('asks by other sessions where the clock was ahead and is set back: those it has may have ended', async () => {
    const assumed: string[] = []
    const sts = {
      assumeRole: async ({ sessionName }: { sessionName: string }) => void assumed.push(sessionName),
      probeOf: () => async () => 'allowed',
    } as unknown as Sts
    let now = 86_400_000
    const canary = createCanary(sts, 'arn:aws:iam::123456789012:role/r', () => now)
    await canary.prepare(3, 'salt', patient)
    now = 0
    await canary.prepare(3, 'salt', patient)
    expect(assumed).toEqual(['@0-salt', '@3-salt', '@0-salt', '@3-salt'])
  })
})
