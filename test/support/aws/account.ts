import { randomBytes } from 'node:crypto'
import type { Policy } from './policy.ts'
import type { Session } from './sessions.ts'
import { Settled } from './settled.ts'

/** What AWS does not document, and this account therefore does as it is told. */
export interface Undocumented {
  /** What `aws:TokenIssueTime` is of credentials that GetScopedCredentials gave. */
  issueTimeOfChild: 'of its parent' | 'its own'
  /**
   * What becomes of them when a deny meets their parent and not them. One by `aws:userid` meets both, and no child lives longer than its parent, so that
   * there is nothing else in which their fates could part.
   */
  childOfDenied: 'lives' | 'is denied'
}

/** One AWS account: who and what is in it. */
export class Account {
  readonly id = '123456789012'
  readonly users = new Map<string, User>()
  readonly roles = new Map<string, Role>()
  /** By ARN. */
  readonly policies = new Map<string, ManagedPolicy>()
  /** Issuers of web identities, by ARN. */
  readonly issuers = new Map<string, Issuer>()
  readonly buckets = new Map<string, Bucket>()
  /** Long-term keys, by their id. */
  readonly keys = new Map<string, LongTermKey>()
  /** By the id of their key. */
  readonly sessions = new Map<string, Session>()
  readonly undocumented: Undocumented = { issueTimeOfChild: 'of its parent', childOfDenied: 'lives' }
  /** Milliseconds since the epoch, as this account has it. */
  readonly now: () => number
  readonly #delay: () => number

  /** @param delay milliseconds until a policy that was written is heeded */
  constructor(now: () => number, delay: () => number) {
    this.now = now
    this.#delay = delay
  }
  iamArn(resource: string): string {
    return `arn:aws:iam::${this.id}:${resource}`
  }
  /** Writes a value that is read at once, and heeded later. */
  write<T>(settled: Settled<T>, value: T): void {
    settled.write(value, this.now() + this.#delay())
  }
}

export interface LongTermKey {
  readonly id: string
  readonly secret: string
  readonly owner: User | 'root'
}

export interface User {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly createdAt: Date
  readonly inline: Settled<ReadonlyMap<string, Policy>>
}

export interface Role {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly path: string
  readonly createdAt: Date
  /** Seconds. */
  maxDuration: number
  readonly trust: Settled<Policy>
  readonly inline: Settled<ReadonlyMap<string, Policy>>
  /** ARNs of managed policies. */
  readonly attached: Settled<readonly string[]>
  readonly boundary: Settled<string | undefined>
  readonly tags: Map<string, string>
}

export interface PolicyVersion {
  readonly id: string
  readonly policy: Policy
  readonly createdAt: Date
}

export interface ManagedPolicy {
  readonly name: string
  readonly id: string
  readonly arn: string
  readonly path: string
  /** Oldest first. */
  versions: readonly PolicyVersion[]
  readonly current: Settled<PolicyVersion>
  /** How many versions there have ever been. */
  made: number
}

export interface Issuer {
  readonly arn: string
  /** What tokens say in `iss`. AWS asks for https; here it may be http on the loopback. */
  readonly url: string
  readonly audiences: readonly string[]
}

export interface Bucket {
  readonly objects: Map<string, Buffer>
  policy: Policy | undefined
}

const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** An identifier such as AWS gives: four letters that say of what, and 16 or 17 others. */
export const identifier = (prefix: 'AKIA' | 'ASIA' | 'AIDA' | 'AROA' | 'ANPA') =>
  prefix + Array.from(randomBytes(prefix.startsWith('AK') || prefix.startsWith('AS') ? 16 : 17), (byte) => base32[byte % 32]).join('')

export const secretKey = () => randomBytes(30).toString('base64')
