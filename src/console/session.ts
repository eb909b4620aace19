import { createHash, createHmac } from 'node:crypto'
import type { Context } from 'hono'
import { getCookie, setCookie } from 'hono/cookie'
import { z } from 'zod'
import type { Clock } from '../base/time.ts'
import type { Actor } from '../identity/actor.ts'
import type { Issuer } from '../identity/issuer.ts'
import type { OperatorEntry, Role } from '../identity/operators.ts'
import { canonical } from '../proof/canonical.ts'
import type { Caller } from '../tasks/task.ts'
import { createSeal } from './seal.ts'

/** Somebody who has signed in, for a while. */
export interface Session {
  readonly issuer: string
  readonly subject: string
  readonly roles: readonly Role[]
  /** Milliseconds. */
  readonly expiresAt: number
}

/**
 * Sessions live in the browser: a sealed cookie that any broker with the same key reads, so that replicas share nothing else and a restart ends none.
 * The price is that a copied cookie works until it expires, sign-out or not, which is why sessions are short and whoever is still signed in
 * at the issuer comes back without noticing.
 *
 * The key is bound to `operators` and to the issuer's entry as configured: whoever loses a role there, or is not accepted under a stricter entry,
 * loses the session with it when the broker starts again.
 */
export interface Sessions {
  open(c: Context, actor: Actor, roles: ReadonlySet<Role>): void
  read(c: Context): Session | undefined
  close(c: Context): void
  /** What every form of this session carries: another site can send a form, but cannot know this. */
  formToken(session: Session): string
  /** A cookie for this page alone that outlives one trip to the issuer and back. */
  readonly cookies: Cookies
}

/** Cookies that no script reads, no other site sets, and no plain connection carries. */
export interface Cookies {
  read(c: Context, name: string): string | undefined
  /** @param seconds 0 removes it */
  write(c: Context, name: string, value: string, seconds: number): void
}

const Shape = z.strictObject({
  issuer: z.string(),
  subject: z.string(),
  roles: z.array(z.enum(['operator', 'reviewer'])),
  expiresAt: z.number(),
})

export interface SessionParts {
  readonly key: Uint8Array
  readonly operators: readonly OperatorEntry[]
  /** Who signs people in, as configured; undefined where only links do. */
  readonly issuer: Issuer | undefined
  readonly publicUrl: string
  /** Milliseconds. */
  readonly lifetime: number
  readonly clock: Clock
}

const name = 'session'

export function createSessions({ key, operators, issuer, publicUrl, lifetime, clock }: SessionParts): Sessions {
  const seal = createSeal(key, `session ${canonical({ operators, issuer })}`, Shape, lifetime, clock)
  const formKey = createHmac('sha256', key).update('form').digest()
  const cookies = createCookies(publicUrl)
  return {
    cookies,
    open(c, { issuer, subject }, roles) {
      cookies.write(c, name, seal.write({ issuer, subject, roles: [...roles].toSorted() }), Math.floor(lifetime / 1_000))
    },
    read: (c) => seal.read(cookies.read(c, name)),
    close: (c) => cookies.write(c, name, '', 0),
    formToken: (session) => createHmac('sha256', formKey).update(canonical(session)).digest('base64url'),
  }
}

/** `__Host-`: only this very host may set it, for all of it, over TLS (RFC 6265bis). Without TLS, in development, a browser would not keep such a one. */
function createCookies(publicUrl: string): Cookies {
  const secure = publicUrl.startsWith('https:')
  const full = (short: string): string => `${secure ? '__Host-' : ''}mayfly-${short}`
  return {
    read: (c, short) => getCookie(c, full(short)),
    // Lax and not Strict: the way back from the issuer is a navigation from another site, and so is a link in a chat at three in the morning.
    write: (c, short, value, maxAge) => setCookie(c, full(short), value, { path: '/', httpOnly: true, secure, sameSite: 'Lax', maxAge }),
  }
}

/** The session as whoever asks, for the verbs and for the log. Attributes were looked at when it was opened, and are not kept. */
export function callerOf(session: Session): Caller {
  const { issuer, subject, roles, expiresAt } = session
  const token = {
    digest: createHash('sha256').update(canonical(session)).digest('hex'),
    jti: undefined,
    kid: 'console',
    alg: 'HS256',
    expiresAt: Math.floor(expiresAt / 1_000),
  }
  const actor: Actor = { issuer, profile: 'oidc', subject, trustDomain: undefined, attributes: { sub: subject }, token }
  // Never an agent, even where the catalogue has one of this name: a browser declares no tasks.
  return { actor, agent: undefined, task: undefined, roles: new Set(roles) }
}
