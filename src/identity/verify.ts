import { createHash } from 'node:crypto'
import { compactVerify } from 'jose'
import { tokenRefused } from '../base/errors.ts'
import type { Clock } from '../base/time.ts'
import type { Actor } from './actor.ts'
import { sameAlgorithm } from './algorithm.ts'
import { type Claims, isFor, readClaims, timeFault, timesOf } from './claims.ts'
import { checkSize, type Compact, readCompact } from './compact.ts'
import { Refusal, type TokenFault } from './fault.ts'
import { type Fetched, fetchedKeys } from './fetched.ts'
import { checkIssuers, type Issuer, rulesOf, type Rules } from './issuer.ts'
import { type KeySource, pinnedKeys } from './keys.ts'
import type { VerificationKey } from './keyset.ts'
import { createMemory } from './memory.ts'
import { isOfKind, profiles } from './profiles.ts'
import { type Spend, spendOnce } from './single-use.ts'
import { parseSpiffeId } from './spiffe.ts'

/** Turns a workload token into the identity that it proves. */
export interface Verifier {
  /**
   * @param isKnown asked before a `single-use` token is spent. False: it is left unspent, so the caller must grant nothing to whoever brought it
   * @throws BrokerError `invalid_token`, the very same for whatever is wrong with it; `store_unavailable`; `timed_out`
   */
  verify(token: string, signal: AbortSignal, isKnown?: (actor: Actor) => boolean): Promise<Actor>
  /** Whether there are keys to verify with, by issuer. */
  ready(): readonly { readonly issuer: string; readonly ok: boolean; readonly detail: string }[]
  /** Ends what runs in the background. */
  close(): void
}

export interface VerifierParts {
  /** The required `aud`: the public URL of this broker. */
  readonly audience: string
  readonly clock: Clock
  readonly spend: Spend
  /** Told why a token is refused, and whose it claimed to be as far as that is configured, else `unknown`. */
  refused(reason: TokenFault, issuer: string): void
  /** Told how each fetch of keys ended. */
  keysFetched?(issuer: string, outcome: Fetched): void
}

/** An issuer and where its keys are. */
interface Trusted {
  readonly rules: Rules
  readonly keys: KeySource
}

/** @throws ConfigurationError with everything that is wrong with the issuers */
export function createVerifier(issuers: readonly Issuer[], parts: VerifierParts): Verifier {
  checkIssuers(issuers)
  const trusted = issuers.map(rulesOf).map((rules): Trusted => ({ rules, keys: keysOf(rules, parts) }))
  const byIssuer = new Map(trusted.map((one) => [one.rules.issuer, one]))
  const byTrustDomain = new Map(trusted.map((one) => [one.rules.trustDomain, one]))
  const memory = createMemory()

  /** By exact text: the issuer it names, else the trust domain of its SPIFFE ID. Nothing is fetched for a stranger. */
  function whose({ claimed: { iss, sub } }: Compact): Trusted {
    const named = typeof iss === 'string' ? byIssuer.get(iss) : undefined
    const trustDomain = parseSpiffeId(sub)?.trustDomain
    const found = named ?? (trustDomain === undefined ? undefined : byTrustDomain.get(trustDomain))
    if (!found) throw new Refusal('unknown_issuer')
    return found
  }

  /** The order is a promise: the first fault wins, and nothing in a token is believed before its signature is. */
  async function accept(token: Compact, { rules, keys }: Trusted, signal: AbortSignal, isKnown: (actor: Actor) => boolean): Promise<Actor> {
    const profile = profiles[rules.profile]
    if (!rules.algorithms.some((algorithm) => sameAlgorithm(algorithm, token.alg))) throw new Refusal('algorithm_not_allowed')
    if (!isOfKind(token, profile)) throw new Refusal('wrong_type')

    const key = await keys.find(token.kid, signal)
    await checkSignature(token, key)
    const claims = readClaims(token.payload)

    if (!isFor(parts.audience, claims)) throw new Refusal('wrong_audience')
    const limits = { maxLifetime: rules.maxLifetime / 1_000, issueTime: profile.issueTime }
    const late = timeFault(claims, limits, parts.clock() / 1_000)
    if (late) throw new Refusal(late)
    const attributes = profile.attributes(claims, rules)
    if (!attributes) throw new Refusal('profile_rule')

    const actor = actorOf(token, key, claims, rules, attributes)
    if (rules.replay !== 'single-use') memory.keep(token.text, { actor, times: timesOf(claims), limits, keys, key })
    else if (isKnown(actor)) await spendOnce(token, claims, rules, actor.token.expiresAt, parts.spend)
    return actor
  }

  return {
    async verify(text, signal, isKnown = () => true) {
      let issuer = 'unknown'
      try {
        checkSize(text)
        const known = memory.recall(text, parts.clock() / 1_000)
        if (known) return known
        const token = readCompact(text)
        const from = whose(token)
        issuer = from.rules.name
        return await accept(token, from, signal, isKnown)
      } catch (error) {
        if (!(error instanceof Refusal)) throw error
        parts.refused(error.fault, issuer)
        // Without a cause, so that the reason cannot reach somebody who guesses tokens.
        throw tokenRefused()
      }
    },
    ready: () => trusted.map(({ rules, keys }) => ({ issuer: rules.name, ...keys.state() })),
    close: () => trusted.forEach(({ keys }) => keys.close()),
  }
}

function keysOf(rules: Rules, parts: VerifierParts): KeySource {
  if ('jwks' in rules.keys) return pinnedKeys(rules.keys.jwks, rules)
  return fetchedKeys(rules, parts.clock, (outcome) => parts.keysFetched?.(rules.name, outcome))
}

/** @throws Refusal */
async function checkSignature({ text, alg }: Compact, { alg: own, key }: VerificationKey): Promise<void> {
  // The key decides the algorithm, not the token.
  if (!sameAlgorithm(own, alg)) throw new Refusal('algorithm_not_allowed')
  try {
    await compactVerify(text, key, { algorithms: [alg] })
  } catch {
    throw new Refusal('bad_signature')
  }
}

function actorOf(token: Compact, { kid, alg }: VerificationKey, claims: Claims, rules: Rules, attributes: Actor['attributes']): Actor {
  const { name, profile, trustDomain } = rules
  const digest = createHash('sha256').update(token.signed).digest('hex')
  // Whole seconds, as the ledger keeps them; rounded down, so that nothing is taken to live longer than it does.
  const expiresAt = Math.floor(claims.exp ?? 0)
  const unreadable = profiles[profile].unreadable?.(claims, rules) ?? []
  return {
    issuer: name,
    profile,
    subject: claims.sub,
    trustDomain,
    attributes,
    ...(unreadable.length > 0 && { unreadable }),
    token: { digest, jti: claims.jti, kid, alg, expiresAt },
  }
}
