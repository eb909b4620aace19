import { randomBytes } from 'node:crypto'
import type { Context, MiddlewareHandler } from 'hono'
import { readUpTo } from '../base/bytes.ts'
import { isSameSecret } from '../base/equal.ts'
import { BrokerError } from '../base/errors.ts'
import type { Env } from '../http/app.ts'
import { subjectOf } from '../http/gate.ts'
import { createPlaces } from '../http/places.ts'
import { type Broker, operatorsOnly } from '../tasks/task.ts'
import type { Visit } from './page.ts'
import { callerOf, type Sessions } from './session.ts'

/** What every request to the console carries besides what the house gives it. */
export interface ConsoleEnv {
  Variables: Env['Variables'] & {
    visit: Visit
    /** The fields of a form that was found to be ours. */
    form: URLSearchParams
  }
}

/** Where the console is: the public URL may have a path of its own. */
const homeOf = (publicUrl: string): string => `${new URL(publicUrl).pathname.replace(/\/$/, '')}/console`

/** Who looks, and what their page needs. In front of everything else of the console. */
export function receive(broker: Broker, sessions: Sessions, publicUrl: string): MiddlewareHandler<ConsoleEnv> {
  const home = homeOf(publicUrl)
  return async (c, next) => {
    const session = sessions.read(c)
    const formToken = session ? sessions.formToken(session) : ''
    c.set('visit', { home, nonce: randomBytes(16).toString('base64'), session, formToken, now: broker.clock() })
    if (session) c.set('caller', callerOf(session))
    await next()
  }
}

/** Bytes of a form: a reason of 500 characters, written in percent signs, and the rest. */
const longestForm = 16_384

/** Forms that are on their way, on this broker and of one person: those of reviewers come in the room in which operators revoke, and leave most of it free. */
const sending = { most: 128, share: 4 }

/**
 * Lets a form pass that a page of ours sent: it says so by its origin, which no page elsewhere can forge, and by the token of the session, which none can know.
 * Nothing is read of whoever has no session. One for the whole console, whose places it keeps.
 *
 * @throws BrokerError `forbidden`, `rate_limited`, `too_large`, `unsupported_media_type`
 */
export function createOwnForm(publicUrl: string): MiddlewareHandler<ConsoleEnv> {
  const origin = new URL(publicUrl).origin
  const places = createPlaces('forms on their way', sending)
  return async (c, next) => {
    const { session, formToken } = c.var.visit
    if (!session) throw foreign()
    const site = c.req.header('sec-fetch-site')
    // Browsers before 2023 send no Sec-Fetch-Site, but an Origin.
    if (site === undefined ? c.req.header('origin') !== origin : site !== 'same-origin') throw foreign()
    if (!/^application\/x-www-form-urlencoded\s*(;|$)/i.test(c.req.header('content-type') ?? ''))
      throw new BrokerError('unsupported_media_type', 'The console reads forms only')
    const arrived = places.take(subjectOf(c.var.caller))
    const form = new URLSearchParams(await textOf(c).finally(arrived))
    if (!isSameSecret(form.get('form_token') ?? '', formToken)) throw foreign()
    c.set('form', form)
    await next()
  }
}

/** Who may only read is refused, and the ledger keeps that they tried. @param call as the API names it */
export const forOperators =
  (call: string): MiddlewareHandler<ConsoleEnv> =>
  async (c, next) => {
    if (isOperator(c)) return await next()
    await c.var.gate.keepRefusal(c.var.caller, call, c.req.param('id'))
    throw operatorsOnly()
  }

export const isOperator = (c: Context<ConsoleEnv>): boolean => c.var.caller.roles.has('operator')

const foreign = () => new BrokerError('forbidden', 'This form did not come from a page of yours here: reload the page and send it again')

async function textOf(c: Context): Promise<string> {
  const form = await readUpTo(c.req.raw.body ?? [], longestForm)
  if (!form) throw new BrokerError('too_large', `A form may have ${longestForm} bytes`)
  return form.toString('utf8')
}

/** The page to go back to, where it is one of the console's own; its first page otherwise. */
export function returnTo(home: string, asked: string | undefined): string {
  if (asked === undefined || !/^\/[\w./?&=%:+~-]{0,500}$/.test(asked)) return home
  // As a browser will read it: dots, and a second slash that would begin a host.
  const { pathname, search, origin } = new URL(asked, nowhere)
  const isOurs =
    origin === nowhere && (pathname === home || pathname.startsWith(`${home}/`)) && !/^\/(sign-in|signed-in|enter)$/.test(pathname.slice(home.length))
  return isOurs ? pathname + search : home
}

const nowhere = 'http://nowhere.invalid'
