import { type Context, Hono, type MiddlewareHandler } from 'hono'
import { html } from 'hono/html'
import { BrokerError, describe } from '../base/errors.ts'
import type { Actor } from '../identity/actor.ts'
import type { Issuer } from '../identity/issuer.ts'
import { type OperatorEntry, rolesOf } from '../identity/operators.ts'
import type { Spend } from '../identity/single-use.ts'
import type { Verifier } from '../identity/verify.ts'
import type { Broker } from '../tasks/task.ts'
import { useLink } from './link.ts'
import { show } from './refusal.ts'
import type { Sessions } from './session.ts'
import { createSignIn, type SignInSettings } from './sign-in.ts'
import { type ConsoleEnv, returnTo } from './visit.ts'

/** The ways in: at the operators' issuer, or in development by a link. */
export interface Entrances {
  readonly issuer?: {
    /** As configured: what the sessions are bound to. */
    readonly entry: Issuer
    readonly settings: SignInSettings
    readonly verifier: Pick<Verifier, 'verify'>
  }
  readonly links?: {
    /** Name of the local issuer in the configuration. */
    readonly issuer: string
    readonly spend: Spend
  }
}

interface EntranceParts {
  readonly broker: Broker
  readonly publicUrl: string
  readonly operators: readonly OperatorEntry[]
  readonly key: Uint8Array
  readonly entrances: Entrances
}

/** Coming and going. */
export function entranceRoutes(
  { broker, publicUrl, operators, key, entrances }: EntranceParts,
  sessions: Sessions,
  ownForm: MiddlewareHandler<ConsoleEnv>,
): Hono<ConsoleEnv> {
  const { clock } = broker
  const signIn =
    entrances.issuer && createSignIn({ ...entrances.issuer, key, cookies: sessions.cookies, redirectUri: `${publicUrl}/console/signed-in`, clock })

  function enter(c: Context<ConsoleEnv>, actor: Actor, to: string): Response {
    const roles = rolesOf(operators, actor)
    const who = { issuer: actor.issuer, subject: actor.subject }
    if (roles.size === 0) {
      broker.telemetry.log.warn(who, 'somebody without a role tried to sign in to the console')
      throw new BrokerError('forbidden', `You are ${actor.subject} of ${actor.issuer}, and no entry under operators gives you a role`)
    }
    broker.telemetry.log.info({ ...who, roles: [...roles] }, 'somebody signed in to the console')
    sessions.open(c, actor, roles)
    return c.redirect(to, 303)
  }

  return new Hono<ConsoleEnv>()
    .get('/sign-in', async (c) => {
      const to = returnTo(c.var.visit.home, c.req.query('to'))
      if (!signIn) return await show(c, { title: 'Sign in', body: byLink }, 401)
      const address = await signIn.begin(c, to, c.req.query('again') !== undefined, c.var.signal)
      return c.redirect(address.href, 303)
    })
    .get('/signed-in', async (c) => {
      if (!signIn) throw new BrokerError('not_found', 'There is no such page')
      const { actor, returnTo: to } = await signIn.finish(c, c.var.signal).catch((error: unknown) => {
        // All other codes have lines of their own: failures as they are answered, refused tokens from who verifies them.
        if (error instanceof BrokerError && error.code === 'forbidden')
          broker.telemetry.log.warn({ request_id: c.var.requestId, error: describe(error) }, 'a sign-in to the console was refused')
        throw error
      })
      return enter(c, actor, to)
    })
    .get('/enter', async (c) => {
      const { links } = entrances
      if (!links) throw new BrokerError('not_found', 'There is no such page')
      const subject = await useLink(key, c.req.query('key') ?? '', clock, links.spend)
      if (subject === undefined) return await show(c, { title: 'Sign in', body: usedUp }, 403)
      return enter(c, developer(links.issuer, subject), c.var.visit.home)
    })
    .post('/sign-out', outAlready, ownForm, async (c) => {
      sessions.close(c)
      return c.redirect(`${c.var.visit.home}/signed-out`, 303)
    })
    .get('/signed-out', (c) => show(c, { title: 'Signed out', body: signedOut(c.var.visit.home) }))
}

/** Whoever has no session is told that they are out, and nothing of what they send is waited for. */
const outAlready: MiddlewareHandler<ConsoleEnv> = async (c, next) =>
  c.var.visit.session ? await next() : c.redirect(`${c.var.visit.home}/signed-out`, 303)

/** Of the local issuer, whose key lies beside the one that signed the link: as if with one of its tokens. */
const developer = (issuer: string, subject: string): Actor => ({
  issuer,
  profile: 'oidc',
  subject,
  trustDomain: undefined,
  attributes: { sub: subject },
  token: { digest: '', jti: undefined, kid: 'console', alg: 'HS256', expiresAt: 0 },
})

const anotherLink = html`<p>Another one, from the folder of the broker: <code>npx mayfly dev console</code></p>`

const byLink = html`<h1>Sign in with a one-time link</h1>
  <p>This is a development broker. It printed a link when it started.</p>
  ${anotherLink}`

const usedUp = html`<h1>This link does not work</h1>
  <p>Each works once, within ten minutes, on the broker that it was made for.</p>
  ${anotherLink}`

const signedOut = (home: string) =>
  html`<h1>You are signed out</h1>
    <p>Of the console, that is: your issuer may still know you. <a href="${home}/sign-in">Sign in again</a></p>`
