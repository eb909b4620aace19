import type { OpenAPIHono } from '@hono/zod-openapi'
import { Hono } from 'hono'
import type { Env } from './app.ts'
import { pageHeaders, renderReference } from './docs.ts'

/** An OpenAPI 3.1 document, as far as the page reads it. */
export type Document = ReturnType<OpenAPIHono<Env>['getOpenAPI31Document']>

/** The API described by itself: the document is made of the very shapes that requests are parsed with. */
export function referenceRoutes(app: OpenAPIHono<Env>, publicUrl: string): Hono<Env> {
  // Made at the first question, when every route hangs in its place, and kept: it cannot change while the broker runs.
  let document: Document | undefined
  let page: string | undefined
  const described = () => (document ??= describeApi(app, publicUrl))

  return new Hono<Env>()
    .get('/openapi.json', (c) => {
      c.header('cache-control', maybeStored)
      return c.json(described())
    })
    .get('/docs', async (c) => {
      page ??= (await renderReference(described())).toString()
      return c.html(page, 200, { ...pageHeaders, 'cache-control': maybeStored })
    })
}

/** Public, but asked for again each time: after an upgrade nobody reads the old one. */
const maybeStored = 'no-cache'

function describeApi(app: OpenAPIHono<Env>, publicUrl: string): Document {
  app.openAPIRegistry.registerComponent('securitySchemes', 'workload_token', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'A token of a configured identity issuer, for exactly this broker as its audience',
  })
  app.openAPIRegistry.registerComponent('securitySchemes', 'task_token', {
    type: 'http',
    scheme: 'bearer',
    description: 'The `mft_…` token that opening a task answers with; it speaks for that task alone',
  })
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Mayfly',
      version: '1',
      description:
        'An agent declares a task, gets short-lived credentials for it, and loses them when the task ends. Errors are `application/problem+json` (RFC 9457). Times are RFC 3339 in UTC, durations look like `"90s"`, `"15m"`, `"2h"`.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url: publicUrl }],
  })
}
