import { randomUUID } from 'node:crypto'
import type { HeldList, Intent, KillLists, ListedSession } from '../../../src/base/kill-lists.ts'
import type { DeniedSession, Reserved, RoleSession, RoleSessions } from '../../../src/base/role-sessions.ts'

interface KeptLease {
  state: 'reserved' | 'active' | 'ended'
  readonly endsAt: number
}

interface KeptSession extends RoleSession {
  readonly lease: string
  readonly endsAt: number
  readonly takenAt: number
  latest: number | undefined
  denied: boolean
  generation: number | undefined
  writtenAt: number | undefined
  confirmedAt: number | undefined
}

interface KeptList {
  generation: number
  digest: string | null
  written: boolean
  intendedAt: number
  confirmed: number
  open: number
  next: number
  killed: readonly string[]
  cutoff: Date | undefined
  shut: boolean
  holder: string | undefined
  heldUntil: number
  checkAt: number
}

/** Milliseconds of a claim, and for which an ended session stays on its list. */
const claim = 30_000
const remembered = 120_000

/** The ports of provider `aws-sts` to the store, in memory: for one provider, and as many brokers as share it. Every verb is one step. */
export class MemoryStore implements RoleSessions, KillLists {
  readonly #now: () => number
  readonly #leases = new Map<string, KeptLease>()
  readonly sessions: KeptSession[] = []
  readonly #lists = new Map<string, KeptList>()
  /** All that was meant to be written, in order. */
  readonly intents: (Intent & { readonly role: string })[] = []

  /** @param now milliseconds since the epoch */
  constructor(now: () => number) {
    this.#now = now
  }

  announce(lease: string, expiresAt: Date): void {
    this.#leases.set(lease, { state: 'reserved', endsAt: expiresAt.getTime() })
  }
  issued(lease: string): void {
    const kept = this.#leases.get(lease)
    if (kept) kept.state = 'active'
    for (const session of this.sessions) if (session.lease === lease) session.latest = this.#now()
  }

  async reserve(_provider: string, lease: string, roles: readonly string[]): Promise<Reserved> {
    const kept = this.#leases.get(lease)
    if (kept?.state !== 'reserved') return { outcome: 'ended' }
    const [role] = roles.filter((name) => !this.list(name).shut).toSorted((a, b) => this.#denied(a).length - this.#denied(b).length)
    if (role === undefined) return { outcome: 'full' }
    const list = this.list(role)
    const name = `${cohort(list.open)}${(list.next++).toString(36).padStart(5, '0')}`
    const nothing = { latest: undefined, denied: false, generation: undefined, writtenAt: undefined, confirmedAt: undefined }
    this.sessions.push({ role, name, lease, endsAt: kept.endsAt, takenAt: this.#now(), ...nothing })
    return { outcome: 'reserved', session: { role, name } }
  }

  async deny(_provider: string, lease: string): Promise<readonly DeniedSession[]> {
    const kept = this.#leases.get(lease)
    if (kept) kept.state = 'ended'
    const own = this.sessions.filter((session) => session.lease === lease)
    for (const session of own) session.denied = true
    return own.map(({ role, name, endsAt, generation, writtenAt, confirmedAt }) => {
      return {
        role,
        name,
        left: endsAt - this.#now(),
        endsAt: new Date(endsAt),
        generation,
        writtenAt: date(writtenAt),
        confirmedAt: date(confirmedAt),
      }
    })
  }

  async due(): Promise<readonly string[]> {
    const isDue = (role: string, list: KeptList) =>
      list.checkAt <= this.#now() ||
      (list.generation > 0 && (!list.written || list.confirmed < list.generation)) ||
      this.#denied(role).some(({ generation }) => generation === undefined)
    return [...this.#lists].filter(([role, list]) => isDue(role, list)).map(([role]) => role)
  }

  async doubt(): Promise<void> {
    for (const list of this.#lists.values()) if (list.generation > 0) list.checkAt = Math.min(list.checkAt, this.#now())
  }

  async take(_provider: string, role: string, holder: string, pause: number): Promise<HeldList | number> {
    const list = this.list(role)
    const now = this.#now()
    if (list.holder !== undefined && list.holder !== holder && list.heldUntil > now) return list.heldUntil - now
    if (list.intendedAt + pause > now) return list.intendedAt + pause - now
    list.holder = holder
    list.heldUntil = now + claim
    const { generation, digest, written, confirmed, killed, cutoff } = list
    const sessions = this.#remembered(role).map((session): ListedSession => {
      return {
        name: session.name,
        denied: session.denied,
        generation: session.generation,
        earliest: new Date(session.takenAt),
        latest: date(session.latest),
      }
    })
    return {
      salt: this.salt,
      generation,
      digest,
      written,
      confirmed,
      open: cohort(list.open),
      killed,
      cutoff,
      sessions,
      checkDue: list.checkAt <= now,
    }
  }

  async closeCohort(_provider: string, role: string, holder: string): Promise<boolean> {
    if (!this.#holds(role, holder)) return false
    const list = this.list(role)
    list.open += 1
    list.next = 0
    return true
  }

  async intend(_provider: string, role: string, holder: string, intent: Intent): Promise<boolean> {
    const list = this.list(role)
    if (!this.#holds(role, holder) || intent.generation !== list.generation + 1) return false
    const { generation, digest, killed, cutoff, rung } = intent
    Object.assign(list, { generation, digest, killed, cutoff, written: false, intendedAt: list.heldUntil - claim, shut: rung === 6 })
    for (const session of this.sessions) {
      if (session.role !== role || !intent.sacrificed.includes(session.name)) continue
      session.denied = true
      const lease = this.#leases.get(session.lease)
      if (lease) lease.state = 'ended'
    }
    this.intents.push({ ...intent, role })
    return true
  }

  async wrote(_provider: string, role: string, holder: string, generation: number, denied: readonly string[]): Promise<boolean> {
    const list = this.list(role)
    if (!this.#holds(role, holder) || list.generation !== generation) return false
    list.written = true
    for (const session of this.sessions) {
      if (session.role !== role || !denied.includes(session.name) || session.generation !== undefined) continue
      session.generation = generation
      session.writtenAt = this.#now()
    }
    return true
  }

  async confirm(_provider: string, role: string, generation: number): Promise<void> {
    const list = this.list(role)
    list.confirmed = Math.max(list.confirmed, generation)
    for (const session of this.sessions)
      if (session.role === role && session.generation !== undefined && session.generation <= generation) session.confirmedAt ??= this.#now()
  }

  async checked(_provider: string, role: string, holder: string, next: number): Promise<void> {
    if (this.#holds(role, holder)) this.list(role).checkAt = this.#now() + next
  }
  async disturbed(_provider: string, role: string): Promise<void> {
    this.list(role).checkAt = this.#now()
  }
  async release(_provider: string, role: string, holder: string): Promise<void> {
    const list = this.list(role)
    if (list.holder === holder) list.holder = undefined
  }

  /** One for all of its lists. */
  readonly salt = randomUUID().slice(0, 8)

  list(role: string): KeptList {
    const known = this.#lists.get(role)
    if (known) return known
    const nothing = { generation: 0, digest: null, written: false, confirmed: 0, killed: [], cutoff: undefined, shut: false }
    const list = { ...nothing, intendedAt: -Infinity, open: 0, next: 0, holder: undefined, heldUntil: 0, checkAt: this.#now() + 3_600_000 }
    this.#lists.set(role, list)
    return list
  }
  #holds(role: string, holder: string): boolean {
    const list = this.list(role)
    return list.holder === holder && list.heldUntil > this.#now()
  }
  #remembered(role: string): KeptSession[] {
    return this.sessions.filter((session) => session.role === role && session.endsAt + remembered > this.#now())
  }
  #denied(role: string): KeptSession[] {
    return this.#remembered(role).filter(({ denied }) => denied)
  }
}

const cohort = (number: number): string => number.toString(36).padStart(3, '0')
const date = (at: number | undefined): Date | undefined => (at === undefined ? undefined : new Date(at))
