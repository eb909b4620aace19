import type { Context, MiddlewareHandler } from 'hono'
import { html } from 'hono/html'
import { BrokerError } from '../base/errors.ts'
import type { Html } from './page.ts'
import { show } from './refusal.ts'
import type { ConsoleEnv } from './visit.ts'

/**
 * Sends whoever has not signed in, or not lately, to do so, and afterwards back to this page; from a form, to the page on which it stands.
 *
 * Whoever comes from a page of ours is shown a page, and not redirected: browsers hold the whole way that a form leads to against `form-action`, and the
 * issuer is not on it. The form would be dropped without a word, and its sender would not know that nothing was ended.
 */
export const signedIn: MiddlewareHandler<ConsoleEnv> = async (c, next) => {
  const { session, home } = c.var.visit
  if (session) return await next()
  if (c.req.path.endsWith('/live')) throw new BrokerError('invalid_token', 'Nobody is signed in here')
  const isSent = c.req.method !== 'GET' && c.req.method !== 'HEAD'
  const to = isSent ? pageOf(pathOf(c, home)) : pathOf(c, home)
  const address = `${home}/sign-in?${new URLSearchParams({ to }).toString()}`
  if (!isSent && c.req.header('sec-fetch-site') !== 'same-origin') return c.redirect(address, 303)
  // A page that was only asked for goes there by itself. What was to be done is said not to have been.
  if (!isSent) c.header('refresh', `0; url=${address}`)
  return await show(c, { title: 'Sign in', body: renderEnded(address, isSent) }, 401)
}

const renderEnded = (address: string, isSent: boolean): Html =>
  html`<h1>Your session has ended</h1>
    ${
      isSent
        ? html`<p><strong class="stuck">What you sent was not done.</strong> <a href="${address}">Sign in again</a>, and send it once more.</p>`
        : html`<p><a href="${address}">Sign in again</a></p>`
    }`

/** On which the form stands that is sent to this path. */
const pageOf = (path: string): string => path.replace(/(\/tasks\/[^/]+)\/revoke$/, '$1').replace(/\/stops\/[^/]+\/lift$/, '/revoke')

const pathOf = (c: Context, home: string): string => {
  const { pathname, search } = new URL(c.req.url)
  return `${home}${pathname.slice(pathname.indexOf('/console') + '/console'.length)}${search}`
}
