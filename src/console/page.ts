import { html, raw } from 'hono/html'
import type { HtmlEscapedString } from 'hono/utils/html'
import { script } from './script.ts'
import type { Session } from './session.ts'
import { style } from './style.ts'

/** Escaped text: whatever the templates of hono/html were given as values cannot become markup. */
export type Html = HtmlEscapedString | Promise<HtmlEscapedString>

/** Controls of the direction of text. They reach beyond whatever element they stand in. */
const directions = /[\u202a-\u202e\u2066-\u2069]/g

/** Of our templates: a tenth of a page. Between tags only, for what stands in a text is not ours to change. */
const indentation = />\s{2,}</g

/**
 * What is sent. Text of an agent may be in any script, whose letters bring their direction along; but with controls of it an agent would turn around what this page
 * says beside it, that nobody has verified it for one. They are shown as the character that stands for none.
 */
export const written = async (content: Html): Promise<string> =>
  (await content).toString().replaceAll(directions, '\ufffd').replaceAll(indentation, '>\n<')

/** Somebody's look at a page. */
export interface Visit {
  /** Path of the console, without a trailing slash: the public URL may have one in front. */
  readonly home: string
  readonly nonce: string
  readonly session: Session | undefined
  /** What every form of this session carries. */
  readonly formToken: string
  /** Milliseconds, by the broker's clock. */
  readonly now: number
}

export interface Page {
  readonly title: string
  /** Which of the pages in the navigation it is. */
  readonly at?: 'now' | 'ledger' | 'revoke'
  /** Path, below the console's, at which its regions are sent anew. */
  readonly live?: string
  readonly body: Html
}

/** Nothing may be loaded or run but the script and style of this very page, and no form may lead elsewhere. */
export const pageHeaders = (nonce: string): Record<string, string> => ({
  'content-security-policy': [
    `default-src 'none'`,
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    `img-src data:`,
    `connect-src 'self'`,
    `form-action 'self'`,
    `base-uri 'none'`,
    `frame-ancestors 'none'`,
  ].join('; '),
  // With `no-referrer`, which the door sets otherwise, browsers send `Origin: null` with a form, and it could not be told from another site's.
  'referrer-policy': 'same-origin',
})

/** The mark in the tab: one square in the colour of what is alive. Part of the page, since nothing may be loaded. */
const icon =
  'data:image/svg+xml,%3Csvg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"%3E%3Crect width="8" height="8" rx="2" fill="%23136f41"/%3E%3C/svg%3E'

export function renderPage({ home, nonce, session, formToken, now }: Visit, { title, at, live, body }: Page): Html {
  return html`<!doctype html>
    <html lang="en" data-now="${now}">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} · Mayfly</title>
        <link rel="icon" href="${icon}" />
        <style nonce="${nonce}">
          ${raw(style)}
        </style>
      </head>
      <body ${live === undefined ? '' : html`data-live="${home}${live}"`}>
        <a class="skip" href="#main">Skip to the page</a>
        <header>
          <nav aria-label="Pages">
            <a href="${home}">Mayfly</a>
            ${session && html`<a href="${home}" ${at === 'now' ? currentPage : ''}>Now</a><a href="${home}/ledger" ${at === 'ledger' ? currentPage : ''}>Ledger</a><a href="${home}/revoke" ${at === 'revoke' ? currentPage : ''}>Revoke</a>`}
          </nav>
          ${session && renderVisitor(home, session, formToken)}
        </header>
        <main id="main">${body}</main>
        <script nonce="${nonce}">
          ${raw(script)}
        </script>
      </body>
    </html>`
}

const currentPage = raw('aria-current="page"')

function renderVisitor(home: string, { subject, roles }: Session, formToken: string): Html {
  return html`<form class="find" action="${home}/find" role="search">
      <input
        name="id"
        aria-label="Find by id"
        placeholder="Find by id, such as task_…"
        maxlength="128"
        required
        autocomplete="off"
        spellcheck="false"
      />
    </form>
    <div class="who">
      <span>${subject} (${roles.join(', ')})</span>
      <form method="post" action="${home}/sign-out">${hiddenToken(formToken)}<button class="plain">Sign out</button></form>
    </div>`
}

export const hiddenToken = (formToken: string): Html => html`<input type="hidden" name="form_token" value="${formToken}" />`

/** A part of a page that is sent anew when it changes. */
export const region = (id: string, content: Html): Html => html`<section id="${id}">${content}</section>`

/** Says whether the page is live; its script keeps it true. */
export const liveMark = (now: number): Html => html`<p id="live" role="status">as of ${new Date(now).toISOString().slice(11, 19)} UTC</p>`
