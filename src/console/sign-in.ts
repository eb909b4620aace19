import type { Context } from 'hono'
import * as oidc from 'openid-client'
import { z } from 'zod'
import { readUpTo } from '../base/bytes.ts'
import { BrokerError } from '../base/errors.ts'
import { forgetOldest } from '../base/forget-oldest.ts'
import type { Clock } from '../base/time.ts'
import { createPlaces } from '../http/places.ts'
import type { Actor } from '../identity/actor.ts'
import type { Verifier } from '../identity/verify.ts'
import { createSeal } from './seal.ts'
import type { Cookies } from './session.ts'

/** How operators and reviewers sign in: OpenID Connect Core 1.0 section 3.1, with PKCE (RFC 7636). */
export interface SignInSettings {
  /** Exactly as its discovery document names itself. */
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string | undefined
  readonly scopes: readonly string[]
  readonly allowHttp: boolean
}

export interface SignIn {
  /**
   * Where to send the browser. What must be remembered until it returns is in a cookie: another browser cannot finish what this one began.
   *
   * @param returnTo the page that was asked for, checked
   * @param again whether the issuer must ask who it is even if it knows
   * @throws BrokerError `provider_unavailable`, `rate_limited`
   */
  begin(c: Context, returnTo: string, again: boolean, signal: AbortSignal): Promise<URL>
  /** Who it is, and where they wanted to go. @throws BrokerError `forbidden` with why as its cause, `invalid_token`, `provider_unavailable`, `rate_limited` */
  finish(c: Context, signal: AbortSignal): Promise<{ readonly actor: Actor; readonly returnTo: string }>
}

export interface SignInParts {
  readonly settings: SignInSettings
  readonly key: Uint8Array
  readonly cookies: Cookies
  /** Judges the issuer's ID tokens as it judges bearer tokens, but for another audience: the client. */
  readonly verifier: Pick<Verifier, 'verify'>
  /** Where the issuer sends the browser back to: registered there. */
  readonly redirectUri: string
  readonly clock: Clock
}

/** Milliseconds that somebody has to prove to the issuer who they are. */
const patience = 600_000

/** Seconds for each request to the issuer. */
const timeout = 5

/** Sign-ins that wait for the issuer at a time, each once. Anybody may begin one and invent a code: without a limit strangers would fill the door while it hangs. */
const waiting = { most: 16, share: 1 }

/**
 * Sign-ins that are remembered to have shown a code, about a megabyte: more than people begin while one of them is good. What is too old is refused by its
 * seal.
 */
const mostSpent = 10_000

/** Bytes of an answer of the issuer's. Tokens with many groups have some ten thousand. */
const largest = 262_144

const Begun = z.strictObject({ state: z.string(), nonce: z.string(), verifier: z.string(), returnTo: z.string(), expiresAt: z.number() })

const name = 'sign-in'

export function createSignIn({ settings, key, cookies, verifier, redirectUri, clock }: SignInParts): SignIn {
  const seal = createSeal(key, name, Begun, patience, clock)
  const issuer = discoverOnce(settings)
  const places = createPlaces('sign-ins', waiting)
  const spent = new Set<string>()

  async function inPlace<Answer>(state: string, ask: () => Promise<Answer>): Promise<Answer> {
    const giveBack = places.take(state)
    try {
      return await ask()
    } finally {
      giveBack()
    }
  }

  return {
    async begin(c, returnTo, again, signal) {
      const [state, nonce, verifier] = [oidc.randomState(), oidc.randomNonce(), oidc.randomPKCECodeVerifier()]
      const configuration = issuer.known() ?? (await inPlace(state, () => issuer.discover(signal)))
      cookies.write(c, name, seal.write({ state, nonce, verifier, returnTo }), patience / 1_000)
      return oidc.buildAuthorizationUrl(configuration, {
        redirect_uri: redirectUri,
        scope: [...new Set(['openid', ...settings.scopes])].join(' '),
        state,
        nonce,
        code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        ...(again && { prompt: 'login' }),
      })
    },

    async finish(c, signal) {
      const begun = seal.read(cookies.read(c, name))
      if (!begun || spent.has(begun.state))
        throw new BrokerError('forbidden', 'This sign-in was not begun in this browser, or too long ago, or is over: begin again')
      const answer = new URL(`${redirectUri}${new URL(c.req.url).search}`)
      const idToken = await inPlace(begun.state, async () => {
        // Not before there is a place: who is sent away may reload the page.
        cookies.write(c, name, '', 0)
        const configuration = await issuer.discover(signal)
        // A browser can be told to forget a cookie, and a stranger cannot: each code that they invent would be a question to the issuer.
        spent.add(begun.state)
        forgetOldest(spent, mostSpent)
        return await exchange(configuration, answer, begun)
      })
      const { returnTo } = begun
      return { actor: await verifier.verify(idToken, signal), returnTo }
    },
  }
}

/** The code for an ID token of this very sign-in. Its signature and times are the verifier's to judge. */
async function exchange(configuration: oidc.Configuration, answer: URL, begun: z.output<typeof Begun>): Promise<string> {
  try {
    const checks = { expectedState: begun.state, expectedNonce: begun.nonce, pkceCodeVerifier: begun.verifier, idTokenExpected: true }
    const tokens = await oidc.authorizationCodeGrant(configuration, answer, checks)
    return tokens.id_token ?? ''
  } catch (cause) {
    throw refusal(cause)
  }
}

function refusal(cause: unknown): BrokerError {
  const reason = reasonOf(cause)
  if (reason === undefined) return unreachable(cause)
  return new BrokerError('forbidden', 'The issuer did not sign you in, or not in this browser: begin again', { cause: new Error(reason) })
}

/** Why the issuer, or the library that reads its answers, refuses: for operators, and without what is quoted, for answers of the issuer may hold tokens. */
function reasonOf(cause: unknown): string | undefined {
  if (cause instanceof oidc.ResponseBodyError || cause instanceof oidc.AuthorizationResponseError)
    // The latter's comes with the address, into which anybody may write anything.
    return errorCode.test(cause.error) ? cause.error : cause.name
  // So a token endpoint answers where the header with the client's secret is wrong (RFC 6749 section 5.2).
  if (cause instanceof oidc.WWWAuthenticateChallengeError) return `the token endpoint does not accept the client: ${cause.status}`
  return cause instanceof oidc.ClientError ? (cause.code ?? cause.name) : undefined
}

/** As all that are registered look. */
const errorCode = /^[a-z_]{1,64}$/

const unreachable = (cause: unknown): BrokerError =>
  new BrokerError('provider_unavailable', 'The issuer that signs people in does not answer as it should', {
    cause: cause instanceof Error ? new Error(cause.name) : undefined,
    retryAfter: 5,
  })

interface Discovery {
  /** Undefined until it was found. */
  known(): oidc.Configuration | undefined
  /** @throws BrokerError `provider_unavailable` */
  discover(signal: AbortSignal): Promise<oidc.Configuration>
}

/** What the issuer says of itself, asked at the first sign-in and kept: a broker starts while its issuer is down, and one failure is not remembered. */
function discoverOnce({ issuer, clientId, clientSecret, allowHttp }: SignInSettings): Discovery {
  let found: Promise<oidc.Configuration> | undefined
  let known: oidc.Configuration | undefined
  const authentication = clientSecret === undefined ? oidc.None() : withSecret(clientSecret)
  const ask = () =>
    oidc.discovery(new URL(issuer), clientId, undefined, authentication, {
      timeout,
      [oidc.customFetch]: boundedFetch,
      ...(allowHttp && { execute: [oidc.allowInsecureRequests] }),
    })
  return {
    known: () => known,
    async discover(signal) {
      signal.throwIfAborted()
      found ??= ask()
      try {
        return (known = await found)
      } catch (cause) {
        found = undefined
        throw unreachable(cause)
      }
    },
  }
}

/** As the issuer says that it wants it: in the header, which is the rule where it says nothing (Discovery 1.0 section 3), else in the body. */
function withSecret(secret: string): oidc.ClientAuth {
  const [basic, post] = [oidc.ClientSecretBasic(secret), oidc.ClientSecretPost(secret)]
  return (server, ...rest) => {
    const accepted = server.token_endpoint_auth_methods_supported
    const useBasic = accepted === undefined || accepted.includes('client_secret_basic')
    return (useBasic ? basic : post)(server, ...rest)
  }
}

/** The library reads an answer whole, however long it is. */
const boundedFetch: oidc.CustomFetch = async (url, options) => {
  const answer = await fetch(url, options as RequestInit)
  const body = await readUpTo(answer.body ?? [], largest)
  if (!body) throw new Error(`the answer is larger than ${largest} bytes`)
  const { status, statusText, headers } = answer
  return new Response(body.length === 0 ? null : new Uint8Array(body), { status, statusText, headers })
}
