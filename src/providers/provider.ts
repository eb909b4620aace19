import type { ZodType } from 'zod'
import type { Evidence, Handle } from '../base/evidence.ts'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { KillLists } from '../base/kill-lists.ts'
import type { RoleSessions } from '../base/role-sessions.ts'
import type { SigningKey } from '../base/signing-key.ts'
import type { Clock } from '../base/time.ts'
import type { Credential } from './credential.ts'

/** What one mint is for. Announced in the ledger before the provider hears of it. */
export interface Reservation<Grant = unknown> {
  readonly lease: LeaseId
  readonly task: TaskId
  readonly agent: string
  readonly owner: string
  readonly kind: string
  /** Subject of the verified workload token. */
  readonly subject: string
  readonly grant: string
  /** The grant's own part for this provider, parsed by `ProviderKind.grant`. */
  readonly settings: Grant
  readonly parameters: Readonly<Record<string, string>>
  /** When the credential must have ended, by the store's clock; never past the task's deadline. */
  readonly expiresAt: Date
  /** The store's time when the lease was announced or refreshed: `iat` of what is signed. */
  readonly issuedAt: Date
  /**
   * Milliseconds since then, by this broker's stopwatch, which began shortly before: never less, whatever it waited for. What lives for a time rather than
   * until a moment is asked for by this, and no clock is compared with another.
   */
  readonly elapsed: () => number
  readonly policyDigest: string
  /** What is journaled of the lease by now. Of one that is being minted: its name, where the provider has a `pool` and one could be taken. */
  readonly handles: readonly Handle[]
}

/** What is left of a lease when it is to be ended: its id, its age, and what the provider journaled. */
export interface LeaseReference {
  readonly lease: LeaseId
  readonly task: TaskId
  /** Milliseconds since it was announced, by the store's clock: what came of it and was not journaled is as old at most. */
  readonly age: number
  readonly handles: readonly Handle[]
}

/** A minted credential, and when it ends by itself. */
export interface Minted {
  readonly credential: Credential
  /** Never later than the reservation's. */
  readonly expiresAt: Date
}

/** How a credential can be ended before its time. */
export type Revocation = 'provider' | 'deny' | 'expiry'

/** Why a provider did not do what it was asked. `downstream`: the backend answers, but not what stands behind it, such as a database. */
export type ProviderFault = 'refused' | 'unavailable' | 'downstream' | 'timed_out' | 'garbage' | 'busy'

/** What an error may say besides. */
interface ProviderErrorContext {
  readonly cause?: unknown
  readonly pointlessFor?: number | undefined
  readonly endsBy?: Date | undefined
}

/**
 * The only error that leaves a provider's folder. Its message is written to the ledger and shown to agents, so it holds no answer of the
 * backend and no secret; the cause is for nobody but a debugger.
 */
export class ProviderError extends Error {
  readonly fault: ProviderFault
  /** Whether a mint may have left something alive. `no` only where the provider said so for certain. */
  readonly minted: 'no' | 'maybe'
  /** Milliseconds for which asking again would be answered alike; 0 where nobody knows. */
  readonly pointlessFor: number
  /** When what may have been minted has ended by itself; undefined where nobody knows more than the reservation says. */
  readonly endsBy: Date | undefined

  constructor(fault: ProviderFault, message: string, minted: 'no' | 'maybe', { cause, pointlessFor = 0, endsBy }: ProviderErrorContext = {}) {
    super(message, { cause })
    this.name = 'ProviderError'
    this.fault = fault
    this.minted = minted
    this.pointlessFor = pointlessFor
    this.endsBy = endsBy
  }

  /** The same error as whoever knows more of what it means tells it. */
  as({ fault = this.fault, minted = this.minted, endsBy = this.endsBy }: Partial<Pick<ProviderError, 'fault' | 'minted' | 'endsBy'>>): ProviderError {
    const { message, cause, pointlessFor } = this
    return new ProviderError(fault, message, minted, { cause, pointlessFor, endsBy })
  }
}

/** How much a backend is asked at once, and for how long. */
export interface CallLimits {
  /** Milliseconds that one call may take, from its start to its end. */
  readonly timeout: number
  /** Calls under way at once: so many mints, and besides them so many ends. */
  readonly concurrency: number
  /** Ends under way at once, where they are many more, because most of them only wait for one and the same. */
  readonly ends?: number
}

/** Public keys and the reader of tokens that the broker itself signs: what a provider offers whose credentials are such tokens. */
export interface SignedTokens {
  /** RFC 7517 JWK set: every key with which a living token may have been signed. */
  keys(): Promise<readonly Record<string, unknown>[]>
  /** The claims of a token that one of these keys signed; undefined for anything else. Whether it is past its `exp` is for the store's clock to say. Never throws. */
  read(token: string): Promise<TokenClaims | undefined>
}

/** Claims of RFC 9068 as this broker writes them. Times are Unix seconds. */
export interface TokenClaims {
  readonly iss: string
  readonly sub: string
  readonly aud: string
  readonly client_id: string
  readonly scope: string
  readonly jti: LeaseId
  readonly iat: number
  readonly exp: number
  readonly task: TaskId
  readonly policy_digest: string
  /** RFC 9396 section 9: what the token is narrowed to. Absent where its grant has no parameters. */
  readonly authorization_details?: readonly [AuthorizationDetail]
}

/** A grant with the parameters that were permitted: a resource server that lets the token do what is not of them lets it do more than the lease says. */
export interface AuthorizationDetail {
  readonly type: 'urn:mayfly:grant'
  /** The grant, by its name in the catalogue. */
  readonly identifier: string
  readonly parameters: Readonly<Record<string, string>>
}

/** What an examination found of one thing. A fault has to be mended, a warning to be known; what is `unchecked` could not be looked at, and says why. */
export interface Finding {
  readonly level: 'ok' | 'unchecked' | 'warning' | 'fault'
  /** What was looked at, such as `token role mayfly-task`. */
  readonly subject: string
  /** What was found and, unless all is well, what mends it. No answer of the backend and no secret. */
  readonly message: string
}

/** A grant of the catalogue that names the provider, to be tried. */
export interface TrialGrant<Grant = unknown> {
  readonly name: string
  /** The grant's own part for this provider, parsed by `ProviderKind.grant`. */
  readonly settings: Grant
  /** Milliseconds. */
  readonly maxTtl: number
  /** A value for each of its parameters; undefined where somebody has to choose one and nobody did. */
  readonly parameters: Readonly<Record<string, string>> | undefined
}

/**
 * What a backend must promise so that its credentials can be leased. The contract suite in test/providers holds every one to it.
 *
 * `Grant` is what its kind makes of a grant's own keys. Whoever has providers of many kinds hands each only what that kind has parsed.
 */
export interface Provider<Grant = unknown> {
  /** Its name in the configuration: the target of leases. */
  readonly name: string
  readonly kind: string
  /** How a credential of a grant with these settings can be ended before its time; told to agents and reviewers, so it must be the truth. */
  revocation(settings: Grant): Revocation
  /**
   * What a credential of a grant with these settings can be used for that goes on when the credential is dead, by its names at the backend. Told to agents
   * and reviewers. Absent: nothing.
   */
  outlives?(settings: Grant): readonly string[]
  /**
   * The roles of which one is assumed for a grant with these settings: the name of its session is taken with the announcement of the lease, and stands
   * among the handles of its reservation. Whoever has a pool can end what has such a name however late it is minted, for nobody asks again whether the
   * lease still lives. Absent: no name is taken beforehand.
   */
  pool?(settings: Grant): readonly string[]
  /**
   * Minting changes nothing outside the broker, and the broker itself answers whether a credential lives. Its leases are announced `active` and
   * end in the commit that ends them; `revoke` and `recover` are never asked.
   */
  readonly local: boolean
  /**
   * The key of those handles whose credential may have opened what goes on past its own end, such as a session with a database: time ends no lease that has
   * one, and it stays `revoking` until the provider has confirmed. Absent, and for all other leases: a credential that has reached its end is dead.
   */
  readonly mustConfirm?: string
  /** The configured limits of this backend; absent: the house's. The signal that every call gets fires by them. */
  readonly limits?: CallLimits
  /**
   * Mints one credential. Each handle is journaled before it is used, so that a crash can be cleaned up after. Asking twice for one lease
   * never leaves two credentials. @throws ProviderError
   */
  mint(reservation: Reservation<Grant>, journal: (handle: Handle) => Promise<void>, signal: AbortSignal): Promise<Minted>
  /**
   * A fresh short-lived credential of a living lease; absent where the provider has none. What was handed out before lives on until its own end. The
   * reservation's `expiresAt` is the furthest that the decision permits; what is given may end long before, and says so. Several may be asked for at
   * once, at several brokers, and by one that never saw the lease before: all that it knows are its handles. Once `revoke` was asked, none is made.
   *
   * A failure says by `minted` whether there may be a credential that nobody was given: `no` puts the lease's end back to where it was, `maybe` leaves it
   * at `endsBy`, or else where this refresh would have put it. @throws ProviderError
   */
  refresh?(reservation: Reservation<Grant>, signal: AbortSignal): Promise<Minted>
  /**
   * Ends the credential and answers with what proves it. Idempotent: ending what is already gone is success. A mint of the same lease that is
   * still under way, or arrives later, must not leave anything alive. Where `revocation` answers `expiry` nothing can be proven: the late mint is
   * fenced off all the same, and the answer is a refusal. @throws ProviderError
   */
  revoke(lease: LeaseReference, signal: AbortSignal): Promise<Evidence>
  /**
   * What became of a mint whose answer never arrived. `minted: false` is a promise that nothing exists and nothing will: a late request for
   * this lease is refused by the backend from now on. @throws ProviderError
   */
  recover(lease: LeaseReference, signal: AbortSignal): Promise<{ readonly minted: boolean }>
  /**
   * Calls back when something works again on whose account ends were put off for long (`pointlessFor`): what was put off is due then. Until what it returns is
   * called. Absent: it puts nothing off for longer than it says for certain.
   */
  onRecovery?(listener: () => void): () => void
  /**
   * Resolves when nothing is under way that nobody waits for any more and that must not be broken off, such as a read behind a mint that gave up. A broker
   * that stops waits for it as long as it can. Never rejects. Absent: there is nothing such.
   */
  settled?(): Promise<void>
  /** Whether the backend answers and accepts the broker's own credential. @throws ProviderError */
  check(signal: AbortSignal): Promise<void>
  /**
   * Tries all that leases of these grants will need, and says everything that is wrong with it at once, for whoever sets the backend up. What it mints it
   * ends. Takes its time, and never throws for what it meets. Absent where `check` says all there is to say.
   */
  examine?(grants: readonly TrialGrant<Grant>[]): Promise<readonly Finding[]>
  /**
   * What it has to do that nobody asked for, such as looking whether what it wrote still stands. Called every second or so, never twice at once; returns
   * at once where nothing is due. @throws ProviderError
   */
  upkeep?(signal: AbortSignal): Promise<void>
  /** Events by which `noticed` may be told that something is wrong. */
  readonly alarms?: readonly string[]
  readonly tokens?: SignedTokens
  /** A key that the backend keeps, by its settings. It throws ProviderError, `refused` where the key is not fit to sign. Absent where it keeps none. */
  signingKey?(settings: unknown): SigningKey
}

/** What a provider may need of the house. */
export interface ProviderSurroundings {
  /** The broker's issuer and audience, without a trailing slash. */
  readonly publicUrl: string
  /** Folder (0700) for key files (0600) that the provider keeps itself. */
  readonly keys: string
  readonly clock: Clock
  /** `mayfly serve`: what is for development only is refused. */
  readonly production?: boolean
  /** Told of each request of a provider that makes several for one call. `request` is one of few names: never an id or a path that holds one. */
  readonly asked?: (provider: string, request: string, outcome: string, seconds: number) => void
  /** Told of what an operator has to know. `event` is one of few names, and counted; `detail` goes into the log: no secret, no answer of a backend. */
  readonly noticed?: (provider: string, level: 'info' | 'warn' | 'error', event: string, detail: Readonly<Record<string, string | number>>) => void
  /** Absent where there is no store, as when a provider is only checked. */
  readonly sessions?: RoleSessions
  readonly killLists?: KillLists
}

/** What is wrong with a grant in the catalogue, or with an entry under `providers:`. `path` leads to it within the grant or the entry. */
export interface GrantFault {
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** A thing of a backend that a grant names. */
export interface NamedThing {
  /** What it is, for people: the same text is the same thing, whichever provider says it. */
  readonly thing: string
  /** What the grant calls it. */
  readonly name: string
  /** The provider works on it: no other provider may name it, and this one calls it by one name. */
  readonly alone: boolean
}

/** A class of backends: the shapes of its configuration and of its grants, and how to connect one. One entry each in providers/kinds.ts. */
export interface ProviderKind<Settings = unknown, Grant = unknown> {
  readonly kind: string
  /** Shape of its entry under `providers:`, without `name` and `kind`. Unknown keys are faults. */
  readonly settings: ZodType<Settings>
  /** Faults of an entry that lie in how it fits those of its kind that stand above it. Absent: none. */
  settingsFaults?(settings: Settings, above: readonly { readonly name: string; readonly settings: Settings }[]): readonly GrantFault[]
  /** Shape of a grant's own keys in the catalogue, without those that every grant has. Unknown keys are faults. */
  readonly grant: ZodType<Grant>
  /** Shape of what names a key to sign with, under `log_key:`, without `provider`. Unknown keys are faults. Absent where a backend keeps none. */
  readonly signingKey?: ZodType
  /** Faults of a grant's own keys that lie in how they fit what every grant has. `parameters`: each, with the most characters of a value. */
  grantFaults?(settings: Grant, entry: { readonly standing: boolean; readonly parameters: ReadonlyMap<string, number> }): readonly GrantFault[]
  /** What of its backend a grant names that two providers, or one under two names, could undo each other's work on. Absent: nothing. */
  things?(settings: Settings, grant: Grant): readonly NamedThing[]
  connect(name: string, settings: Settings, surroundings: ProviderSurroundings): Promise<Provider<Grant>>
}
