import type { KillLists } from '../../../src/base/kill-lists.ts'
import type { Canary } from '../../../src/providers/aws-sts/kill-list/canary.ts'
import { type Carrier, createCarrier } from '../../../src/providers/aws-sts/kill-list/carrier.ts'
import type { Iam } from '../../../src/providers/aws-sts/kill-list/iam.ts'
import { createRoleList } from '../../../src/providers/aws-sts/kill-list/role-list.ts'
import type { Rounds } from '../../../src/providers/aws-sts/kill-list/rounds.ts'
import { ProviderError } from '../../../src/providers/provider.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import { whyNot } from './evaluate.ts'
import { MemoryStore } from './memory-store.ts'
import { parsePolicy, type Policy } from './policy.ts'
import { policyOf } from './site.ts'

export const role = 'mayfly/invoices'
const noon = Date.UTC(2026, 10, 25, 12)
const everything = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })

/** What is to happen to a write: nothing more, or its answer is lost, before or after it was done. */
export type Mishap = 'none' | 'not done' | 'done'

/**
 * One kill list, one store and any number of brokers on a stage where nothing happens by itself: every call of a store or of AWS waits to be let go, and
 * every pause for the clock. Who is let go next is for `choose` to say, so that a seed is a whole course of events.
 */
export class Stage {
  now = noon
  readonly store = new MemoryStore(() => this.now)
  /** What AWS was given, and from when it heeds it. The last is the default version of the policy, and the only one that cannot be deleted. */
  readonly documents: { readonly id: string; readonly text: string; readonly from: number }[] = [{ id: 'v1', text: everything, from: noon }]
  /** Versions that are still there, by their ids. */
  versions: readonly string[] = ['v1']
  /** What IAM was asked, in order. */
  readonly asked: string[] = []
  readonly noticed: { readonly event: string; readonly detail: object }[] = []
  readonly #calls: (() => void)[] = []
  #timers: { readonly at: number; readonly ring: () => void }[] = []
  #stalled: { readonly call: () => void; steps: number }[] = []
  #leases = 0
  /** Milliseconds until AWS heeds what it was given. */
  propagation = 0
  /** Milliseconds that pass with each call, on its way there and on its way back. */
  slowness = 0
  /** Actions that IAM says nothing to, and does not do. */
  readonly silent = new Set<string>()
  capacity = 6_144
  /** One of so many, from 0. */
  choose: (many: number) => number = () => 0
  mishap: () => Mishap = () => 'none'
  /** Called when a generation was seen in force. */
  seen: (generation: number) => void = () => {}

  call(): Promise<void> {
    return new Promise((resolve) => this.#calls.push(resolve))
  }
  pause = (milliseconds: number): Promise<void> => new Promise((ring) => this.#timers.push({ at: this.now + milliseconds, ring }))

  /** Lets everything happen until a promise is settled, or nothing is left to happen. */
  async until<T>(promise: Promise<T>): Promise<T> {
    let open = true
    const close = () => (open = false)
    promise.then(close, close)
    while (open) {
      if (!(await this.step()) && open) throw new Error('nothing is left to happen')
    }
    return await promise
  }

  /** Keeps a call that waits where it is, until so many others were let go. */
  async stall(steps: number): Promise<void> {
    await settled()
    const call = this.#calls.splice(this.choose(this.#calls.length), 1)[0]
    if (call) this.#stalled.push({ call, steps })
  }

  /** Lets one call go or, where none waits, the clock go on to the next pause that is over. False: nothing is left. */
  async step(): Promise<boolean> {
    await settled()
    for (const stalled of this.#stalled) stalled.steps -= 1
    this.#calls.push(...this.#stalled.filter(({ steps }) => steps <= 0).map((stalled) => stalled.call))
    this.#stalled = this.#stalled.filter(({ steps }) => steps > 0)
    const call = this.#calls.splice(this.choose(this.#calls.length), 1)[0]
    if (call) return ((this.now += this.slowness), call(), true)
    if (this.#stalled.length > 0) return true
    this.#timers = this.#timers.toSorted((a, b) => a.at - b.at)
    const timer = this.#timers.shift()
    if (!timer) return false
    this.now = Math.max(this.now, timer.at)
    timer.ring()
    return true
  }

  /**
   * Takes a name for a new session, as a mint does. Undefined where the role takes none.
   * @param answered AWS's answer came, so that it is known when the session was issued
   */
  async take(life = 3_600_000, answered = true): Promise<{ readonly lease: string; readonly name: string } | undefined> {
    const lease = `lease_${this.#leases++}`
    this.store.announce(lease, new Date(this.now + life))
    const reserved = await this.store.reserve('aws', lease, [role])
    if (reserved.outcome !== 'reserved') return undefined
    if (answered) this.store.issued(lease)
    return { lease, name: reserved.session.name }
  }

  broker(name: string): Rounds {
    const noticed = (_: string, __: string, event: string, detail: object): void => void this.noticed.push({ event, detail })
    return createRoleList(
      { provider: 'aws', role, holder: name, lists: this.#slow(this.store), carrier: this.#carrier(), canary: this.#canary(), noticed },
      this.pause,
    )
  }

  /** What AWS would say to a session of this name now. */
  denies(name: string, issuedAt = this.now): boolean {
    const heeded = this.documents.findLast(({ from }) => from <= this.now)!.text
    return denies(heeded, name, issuedAt)
  }

  #slow(store: MemoryStore): KillLists {
    const slow =
      <Parameters extends unknown[], Answer>(verb: (...about: Parameters) => Promise<Answer>) =>
      async (...about: Parameters): Promise<Answer> => {
        await this.call()
        const answer = await verb.apply(store, about)
        // On its way back: what happens now is not in it.
        await this.call()
        return answer
      }
    return {
      due: slow(store.due),
      doubt: slow(store.doubt),
      take: slow(store.take),
      closeCohort: slow(store.closeCohort),
      intend: slow(store.intend),
      wrote: slow(store.wrote),
      confirm: slow(store.confirm),
      checked: slow(store.checked),
      disturbed: slow(store.disturbed),
      release: slow(store.release),
    }
  }

  #carrier(): Carrier {
    const settings = awsSettings.parse({ region: 'eu-central-1', account: '123456789012', kill_list: { capacity: this.capacity } })
    return createCarrier(this.#iam(), settings, settings.kill_list!, role)
  }

  /** The one policy that is asked about. */
  #iam(): Iam {
    const ask = async <Answer>(action: string, act: () => Answer): Promise<Answer> => {
      const mishap = action.startsWith('Get') ? 'none' : this.mishap()
      this.asked.push(action)
      if (this.silent.has(action)) return await new Promise(() => {})
      await this.call()
      const answer = mishap === 'not done' ? undefined : act()
      await this.call()
      if (mishap !== 'none') throw new ProviderError('unavailable', 'the connection was lost', 'maybe')
      return answer as Answer
    }
    const remove = (version: string) =>
      ask('DeletePolicyVersion', () => {
        if (version !== this.documents.at(-1)!.id) this.versions = this.versions.filter((other) => other !== version)
      })
    return {
      ...({} as Iam),
      boundaryOf: async () => 'arn:aws:iam::123456789012:policy/mayfly-kill-list-invoices',
      readPolicy: () => ask('GetPolicyVersion', () => this.documents.at(-1)!.text),
      createVersion: (_, text) =>
        ask('CreatePolicyVersion', () => {
          if (text.length > this.capacity) throw new Error('a document that does not fit')
          if (this.versions.length === 5) throw new ProviderError('refused', 'there is no room for it', 'no', { cause: { name: 'LimitExceeded' } })
          const id = `v${this.documents.length + 1}`
          this.versions = [...this.versions, id]
          this.documents.push({ id, text, from: this.now + this.propagation })
          return id
        }),
      deleteVersion: (_, version) => remove(version),
      deleteOldVersions: async () => {
        for (const version of await ask('ListPolicyVersions', () => this.versions.filter((id) => id !== this.documents.at(-1)!.id)))
          await remove(version)
      },
    }
  }

  #canary(): Canary {
    return {
      prepare: async () => {},
      isInForce: async (generation, salt, shut) => {
        await this.call()
        const seen = this.denies(`@${generation}-${salt}`) && (shut || !this.denies(`@0-${salt}`))
        if (seen) this.seen(generation)
        return seen
      },
      forget: () => {},
    }
  }
}

/** Everything that what happened last set off has come to its next call. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The last one, for it is asked about many sessions. */
let parsed: Policy | undefined

/** What the evaluator of our AWS makes of a document. */
export function denies(document: string, name: string, issuedAt: number): boolean {
  if (parsed?.text !== document) parsed = parsePolicy(document, 'identity')
  const rights = { root: false, identity: [parsed], boundary: undefined, session: [], names: new Map() }
  const context = new Map([
    ['aws:userid', [`AROAEXAMPLE:${name}`]],
    ['aws:tokenissuetime', [new Date(issuedAt).toISOString()]],
  ])
  return whyNot(rights, { action: 's3:GetObject', resource: 'arn:aws:s3:::invoices/acme/1', context })?.startsWith('with an explicit deny') ?? false
}

/** Numbers that look as if by chance, the same for the same seed (mulberry32). */
export function dice(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
