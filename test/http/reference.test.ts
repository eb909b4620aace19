import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { buildHouse } from './house.ts'

const house = buildHouse()

describe('the OpenAPI document', async () => {
  const answer = await house.ask('/openapi.json')
  const document = (await answer.json()) as {
    openapi: string
    info: { title: string; version: string }
    paths: Record<
      string,
      Record<string, { parameters?: { in: string; name: string; required?: boolean }[]; responses: Record<string, { description: string }> }>
    >
    components: { schemas: Record<string, unknown>; securitySchemes: Record<string, unknown> }
  }
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ name: `${method} ${path}`, path, operation })),
  )

  test('is OpenAPI 3.1 with its schemes of authentication', () => {
    expect(document.openapi).toBe('3.1.0')
    expect(document.info).toMatchObject({ title: 'Mayfly', version: expect.any(String) as string })
    expect(Object.keys(document.components.securitySchemes).toSorted()).toEqual(['task_token', 'workload_token'])
  })

  test('refers to nothing that it does not hold', () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, reference]) => reference!)
    expect(references.length).toBeGreaterThan(50)
    for (const reference of references) {
      const [, name] = /^#\/components\/schemas\/(\w+)$/.exec(reference) ?? []
      expect(document.components.schemas, reference).toHaveProperty(name!)
    }
  })

  test.each(operations)('declares what is in the path of $name, and describes each answer', ({ path, operation }) => {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
    const declared = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path')
    expect(declared.map((parameter) => parameter.name)).toEqual(inPath)
    expect(declared.every((parameter) => parameter.required)).toBe(true)
    expect(Object.keys(operation.responses).length).toBeGreaterThan(0)
    for (const response of Object.values(operation.responses)) expect(response.description).not.toBe('')
  })

  test('is strict about requests and open about answers', () => {
    expect(document.components.schemas['Declaration']).toMatchObject({ additionalProperties: false, required: ['kind'] })
    expect(document.components.schemas['Task']).not.toHaveProperty('additionalProperties')
    expect(document.components.schemas['Problem']).toMatchObject({
      required: expect.arrayContaining(['type', 'code', 'retry', 'request_id']) as string[],
    })
  })

  test('tells how the ledger is followed, beside what filters a page of it', () => {
    const { parameters = [], responses } = document.paths['/ledger']!['get']!
    expect(parameters.map(({ name }) => name)).toEqual(expect.arrayContaining(['follow', 'after', 'format', 'agent', 'cursor']))
    expect(new Set(parameters.map(({ name }) => name)).size).toBe(parameters.length)
    expect(JSON.stringify(responses['200'])).toContain('text/event-stream')
  })

  test('is for everybody, and the same each time', async () => {
    expect(await (await house.ask('/openapi.json')).json()).toEqual(document)
  })

  test('is shown by a page that names every call and every shape', async () => {
    const page = await (await house.ask('/docs')).text()
    for (const { path } of operations) expect(page).toContain(`<code>${path}</code>`)
    for (const name of Object.keys(document.components.schemas)) expect(page).toContain(`id="${name}"`)
  })
})

describe('the reference page', async () => {
  const answer = await house.ask('/docs')
  const page = await answer.text()

  test('loads nothing from anywhere and runs nothing', () => {
    expect(answer.headers.get('content-type')).toBe('text/html; charset=UTF-8')
    expect(page).not.toMatch(/<(script|img|link|iframe|object|embed|form|base)\b/i)
    expect(page).not.toMatch(/\b(src|srcset|style|on\w+)\s*=/i)
    expect(page).not.toMatch(/@import|url\(/i)
    const links = [...page.matchAll(/href="([^"]+)"/g)].map(([, href]) => href!)
    expect(links.every((href) => href.startsWith('#') || href === 'openapi.json')).toBe(true)
  })

  test('has a policy that lets in its one style and nothing else', () => {
    const [, style] = /<style>([\s\S]*?)<\/style>/.exec(page)!
    const hash = createHash('sha256').update(style!).digest('base64')
    expect(answer.headers.get('content-security-policy')).toBe(
      `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    )
  })

  test('links only to what is on it', () => {
    const targets = [...page.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id!)
    expect(targets.length).toBeGreaterThan(20)
    for (const id of new Set(targets)) expect(page).toContain(`id="${id}"`)
  })
})
