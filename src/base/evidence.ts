/** A non-secret reference with which a provider can end a credential, such as an accessor or a lease id of Vault. */
export type Handle = Readonly<Record<string, string>>

/** What proves that a credential is dead, as the provider said it. No secrets: it is shown to agents and reviewers. */
export interface Evidence {
  /** Who says so: `provider` (asked and confirmed), `broker` (dead because the broker itself answers for it), `time` (its own end has passed: it was not revoked). */
  readonly by: 'provider' | 'broker' | 'time'
  /** One sentence for a reviewer, such as `DELETE answered 204`. */
  readonly statement: string
  /** RFC 3339, when it was said. */
  readonly at: string
}
