import type { Context } from 'hono'
import { html } from 'hono/html'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { BrokerError } from '../base/errors.ts'
import { onTheWire, sayWhenToComeBack } from '../http/problem.ts'
import { type Page, pageHeaders, renderPage, written } from './page.ts'
import type { ConsoleEnv } from './visit.ts'

/** Answers with a page. */
export async function show(c: Context<ConsoleEnv>, page: Page, status: ContentfulStatusCode = 200): Promise<Response> {
  const { visit } = c.var
  return c.html(await written(renderPage(visit, page)), status, pageHeaders(visit.nonce))
}

/** What went wrong, as a page: the same words as on the wire. */
export function showFault(c: Context<ConsoleEnv>, error: BrokerError): Promise<Response> {
  const { status, title, retry } = onTheWire[error.code]
  const { home, session } = c.var.visit
  const body = html`<h1>${title}</h1>
    <p>${error.detail}.</p>
    ${
      error.errors.length > 0
        ? html`<ul class="fault">
            ${error.errors.map(({ pointer, message }) => html`<li><code>${pointer}</code> ${message}</li>`)}
          </ul>`
        : ''
    }
    <p>
      ${retry === 'later' || retry === 'same' ? 'Reload the page in a moment.' : ''}
      ${session ? html`<a href="${home}">To what is alive now</a>` : html`<a href="${home}/sign-in?again=1">Sign in</a>`}
    </p>
    <p class="quiet">Request <code>${c.var.requestId}</code></p>`
  sayWhenToComeBack(c, error)
  return show(c, { title, body }, status)
}
