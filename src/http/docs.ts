import { createHash } from 'node:crypto'
import { html, raw } from 'hono/html'
import type { HtmlEscapedString } from 'hono/utils/html'
import type { Document } from './reference.ts'

type Html = HtmlEscapedString | Promise<HtmlEscapedString>

/** The parts of an operation that the page shows. */
interface Operation {
  readonly summary?: string
  readonly parameters?: readonly { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[]
  readonly requestBody?: { required?: boolean; content: Content }
  readonly responses: Readonly<Record<string, { description: string; content?: Content }>>
  readonly 'x-callers'?: readonly string[]
}
type Content = Readonly<Record<string, { schema?: Schema }>>
interface Schema {
  readonly $ref?: string
  readonly type?: string | readonly string[]
  readonly format?: string
  readonly enum?: readonly string[]
  readonly const?: unknown
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly description?: string
  readonly oneOf?: readonly Schema[]
  readonly anyOf?: readonly Schema[]
  readonly allOf?: readonly Schema[]
}

const style = `
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font-family: ui-monospace, monospace; font-size: .9em }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem }
h2 { margin-top: 3rem } h3 { margin-bottom: .25rem }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0 }
b { color: #0a7d55 }
`

/** Nothing may be loaded or run; the one style is named by its hash. */
export const pageHeaders = {
  'content-security-policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
} as const

/** The reference as one page without script or outside asset, in the order in which the routes are written. */
export function renderReference(document: Document): Html {
  const operations = Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods as Record<string, Operation>).map(([method, operation]) => ({ path, method, operation })),
  )
  const schemas = Object.entries((document.components?.schemas ?? {}) as Record<string, Schema>)
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${document.info.title} API</title>
        ${raw(`<style>${style}</style>`)}
      </head>
      <body>
        <h1>${document.info.title} API</h1>
        <p>${prose(document.info.description)}</p>
        <p>The same as a document for machines: <a href="openapi.json">openapi.json</a></p>
        <h2>Calls</h2>
        ${operations.map(({ path, method, operation }) => renderOperation(path, method, operation))}
        <h2>Shapes</h2>
        ${schemas.map(
          ([name, schema]) =>
            html`<section id="${name}">
              <h3>${name}</h3>
              ${renderShape(schema)}
            </section>`,
        )}
      </body>
    </html>`
}

function renderOperation(path: string, method: string, operation: Operation): Html {
  const callers = operation['x-callers']
  return html`<section>
    <h3><b>${method.toUpperCase()}</b> <code>${path}</code></h3>
    <p>${operation.summary}. ${callers ? html`For: ${callers.map(named).join(', ')}.` : 'Public.'}</p>
    <table>
      ${(operation.parameters ?? []).map(
        (parameter) =>
          html`<tr>
            <th>${parameter.in}</th>
            <td><code>${parameter.name}</code>${parameter.required ? ' (required)' : ''}</td>
            <td>${typeOf(parameter.schema)} ${prose(parameter.description)}</td>
          </tr>`,
      )}
      ${
        operation.requestBody &&
        html`<tr>
          <th>body</th>
          <td>${operation.requestBody.required ? '' : 'optional'}</td>
          <td>${contentOf(operation.requestBody.content)}</td>
        </tr>`
      }
      ${Object.entries(operation.responses).map(
        ([status, answer]) =>
          html`<tr>
            <th>${status}</th>
            <td>${contentOf(answer.content)}</td>
            <td>${prose(answer.description)}</td>
          </tr>`,
      )}
    </table>
  </section>`
}

const named = (caller: string): string => (caller === 'task' ? 'the task token' : caller.replace('_', ' '))

const contentOf = (content: Content | undefined): Html =>
  html`${Object.values(content ?? {}).map((one, at) => html`${at > 0 ? ' or ' : ''}${typeOf(one.schema)}`)}`

function renderShape(schema: Schema): Html {
  // An extended shape is written as the one it extends and what it adds.
  const parts = schema.allOf ?? schema.oneOf ?? schema.anyOf
  if (parts)
    return html`<p>${prose(schema.description)}</p>
      ${parts.map((part) => (part.$ref ? html`<p>${typeOf(part)} and</p>` : renderShape(part)))}`
  return html`<p>${prose(schema.description)}</p>
    <table>
      ${Object.entries(schema.properties ?? {}).map(
        ([name, field]) =>
          html`<tr>
            <td><code>${name}</code>${schema.required?.includes(name) ? '' : ' (optional)'}</td>
            <td>${typeOf(field)}</td>
            <td>${prose(field.description)}</td>
          </tr>`,
      )}
    </table>`
}

/** A word for a type, linked where it is one of the shapes. */
function typeOf(schema: Schema | undefined): Html {
  if (!schema) return html``
  if (schema.$ref) {
    const name = schema.$ref.split('/').at(-1)!
    return html`<a href="#${name}">${name}</a>`
  }
  if (schema.items) return html`list of ${typeOf(schema.items)}`
  if (schema.enum) return html`${schema.enum.map((value, at) => html`${at > 0 ? ' | ' : ''}<code>${value}</code>`)}`
  if (schema.const !== undefined) return html`<code>${JSON.stringify(schema.const)}</code>`
  const parts = schema.allOf ?? schema.oneOf ?? schema.anyOf
  if (parts) return html`${parts.map((part, at) => html`${at > 0 ? ' | ' : ''}${typeOf(part)}`)}`
  return html`${schema.format ?? [schema.type ?? 'any JSON'].flat().join(' or ')}`
}

/** Text whose `words` are code. */
function prose(text: string | undefined): Html {
  return html`${(text ?? '').split('`').map((part, at) => (at % 2 === 1 ? html`<code>${part}</code>` : part))}`
}
