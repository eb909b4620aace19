import { describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { onTheWire } from '../../src/http/problem.ts'
import { emptyWords, placesIn, withAt } from '../support/wrong-values.ts'
import { buildHouse, type Asked } from './house.ts'

interface Operation {
  readonly security?: readonly object[]
  readonly 'x-callers'?: readonly string[]
  readonly parameters?: readonly { readonly in: string; readonly name: string }[]
  readonly requestBody?: { readonly required?: boolean; readonly content: Record<string, unknown> }
  readonly responses: Record<string, unknown>
}

const house = buildHouse()
const document = (await (await house.ask('/openapi.json')).json()) as { paths: Record<string, Record<string, Operation>> }

/** Every call that the document names, with ids in its path that are well formed and nobody's. */
const calls = Object.entries(document.paths).flatMap(([pattern, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    name: `${method.toUpperCase()} ${pattern}`,
    pattern,
    path: fill(pattern),
    method,
    operation,
  })),
)
const guarded = calls.filter((call) => call.operation['x-callers'])
const withJson = guarded.filter((call) => call.operation.requestBody && 'application/json' in call.operation.requestBody.content)

function fill(pattern: string): string {
  const noun = pattern.startsWith('/tasks')
    ? 'task'
    : pattern.startsWith('/leases')
      ? 'lease'
      : pattern.startsWith('/revocations')
        ? 'rev'
        : pattern.startsWith('/stops')
          ? 'stop'
          : 'dec'
  return pattern.replace('{id}', newId(noun)).replace('{digest}', `sha256:${'0'.repeat(64)}`)
}

/** A token of somebody for whom the call is. */
function allowed(operation: Operation): string {
  const [first] = operation['x-callers']!
  return first === 'resource_server' ? 'server' : first!
}

const queryOf = ({ operation }: (typeof calls)[number]): readonly string[] =>
  (operation.parameters ?? []).filter((parameter) => parameter.in === 'query').map(({ name }) => name)

const sent = (call: (typeof calls)[number], asked: Asked): Asked => ({ method: call.method.toUpperCase(), ...asked })

describe('what is public', () => {
  test('is a short list, and everything else asks for a token', () => {
    const open = calls.filter((call) => !call.operation['x-callers']).map((call) => call.name)
    expect(open.toSorted()).toEqual(
      ['GET /.well-known/jwks.json', 'GET /.well-known/openid-configuration', 'GET /healthz', 'GET /metrics', 'GET /readyz'].toSorted(),
    )
  })

  test('is all of the routes there are, beside the reference itself', () => {
    const routed = house.app.routes
      .filter((route) => route.method !== 'ALL')
      .map((route) => `${route.method} ${route.path.replaceAll(/:(\w+)/g, '{$1}')}`)
    const named = calls.map((call) => call.name)
    expect([...new Set(routed)].filter((route) => !named.includes(route)).toSorted()).toEqual([
      'GET /docs',
      // In the document with {level}/{place}, as the one below.
      'GET /log/{log}/tile/{path}{.+}',
      'GET /openapi.json',
      // In the document as /tile/{level}/{place}: the place of a tile is several segments.
      'GET /tile/{path}{.+}',
    ])
  })

  test('is said in the document by the security of each call', () => {
    for (const call of guarded) expect(call.operation.security, call.name).not.toEqual([])
    for (const call of calls.filter((one) => !one.operation['x-callers'])) expect(call.operation.security, call.name).toBeUndefined()
  })
})

describe.each(guarded)('$name', (call) => {
  const who = call.operation['x-callers']!

  test('answers every token that is not accepted with one and the same 401', async () => {
    const garbled = ['', 'Bearer', 'Bearer ', 'Basic agent', 'Bearer agent, Bearer agent', 'Bearer a b', 'agent', `Bearer ${'a'.repeat(20_000)}`]
    const tokens = ['nobody', 'mft_nobody', 'mft_', '..', 'a.b.c']
    const headers = [...garbled, ...tokens.map((token) => `Bearer ${token}`)].map((authorization) => ({ authorization }))
    const seen = new Set<string>()
    for (const header of [{}, ...headers]) {
      const answer = await house.ask(call.path, sent(call, { headers: header }))
      const { request_id: _, ...problem } = (await answer.json()) as Record<string, unknown>
      expect(answer.status).toBe(401)
      seen.add(JSON.stringify([problem, answer.headers.get('www-authenticate')]))
    }
    expect([...seen]).toEqual([
      JSON.stringify([
        {
          type: 'urn:mayfly:problem:invalid_token',
          title: 'The token was not accepted',
          status: 401,
          detail: 'The workload token was not accepted',
          code: 'invalid_token',
          retry: 'new_token',
        },
        'Bearer realm="mayfly", error="invalid_token"',
      ]),
    ])
  })

  test('refuses a stranger before it reads what they sent', async () => {
    const problem = await house.problem(call.path, sent(call, { token: 'stranger', ...(call.method === 'post' && { text: '{' }) }))
    expect(problem).toMatchObject({ status: 403, code: who.includes('agent') ? 'agent_unknown' : 'forbidden', retry: 'no' })
  })

  const others = { agent: 'agent', operator: 'operator', reviewer: 'reviewer', server: 'resource_server' }
  const wrong = Object.entries(others).filter(([, role]) => !who.includes(role))
  test.each(wrong)('is forbidden for a known %s', async (token) => {
    expect(await house.problem(call.path, sent(call, { token }))).toMatchObject({ status: 403, code: 'forbidden' })
  })

  // A tile has coordinates, and what is no coordinate is named: test/http/log.test.ts.
  if (!call.pattern.includes('{') || call.pattern.startsWith('/tile/')) return
  test('answers a malformed id like an unknown one', async () => {
    for (const id of ['1', 'task_', 'lease_01h455vb4pex5vsknk084sn02', '..%2f..', 'task_01H455VB4PEX5VSKNK084SN02Q', `task_${'a'.repeat(500)}`]) {
      const path = call.pattern.replace(/\{\w+\}/, id)
      expect(await house.problem(path, sent(call, { token: allowed(call.operation), ...bodyOf(call) })), path).toMatchObject({
        status: 404,
        code: 'not_found',
      })
    }
  })
})

/** Something that gets past the door of calls that need a body. */
function bodyOf(call: (typeof calls)[number]): Asked {
  if (!call.operation.requestBody?.required) return {}
  return { json: /\/(revoke|lift)$/.test(call.pattern) ? { reason: 'r' } : { name: 'g', kind: 'k' } }
}

describe.each(withJson)('the body of $name', (call) => {
  const token = allowed(call.operation)
  const refused = async (asked: Asked) => house.problem(call.path, sent(call, { token, ...asked }))

  test.each([
    ['that is no JSON', '{"kind":', ''],
    ['with a key named twice', '{"reason":"a","reason":"b"}', '/reason'],
    ['with a key named twice, once with an escape', '{"reason":"a","re\\u0061son":"b"}', '/reason'],
    ['with a key named twice in a list', '{"grants":[{},{"a/b":[1,2],"a/b":2}]}', '/grants/1/a~1b'],
    ['nested without end', `{"labels":${'['.repeat(40)}${']'.repeat(40)}}`, `/labels${'/0'.repeat(15)}`],
    ['that is a list', '[]', ''],
    ['that is null', 'null', ''],
    ['with an unknown key', '{"nothing_of_ours":1}', '/nothing_of_ours'],
    ['that sets a prototype', '{"__proto__":{"kind":"k"}}', '/__proto__'],
    ['that sets the prototype of labels', '{"labels":{"__proto__":"x"}}', '/labels/__proto__'],
    [
      'that sets the prototype of parameters, with an escape',
      '{"grants":[{"parameters":{"\\u005f_proto__":"x"}}]}',
      '/grants/0/parameters/__proto__',
    ],
  ])('is refused, and its fault named with its place, when it is one %s', async (_, text, pointer) => {
    const problem = await refused({ text })
    expect(problem).toMatchObject({ status: 400, code: 'invalid_request' })
    expect(problem['errors']).toContainEqual({ pointer, message: expect.stringMatching(/^(is|must) /) as string })
  })

  test('is refused when it is not UTF-8', async () => {
    const text = Buffer.concat([Buffer.from('{"reason":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')])
    const errors = [{ pointer: '', message: 'is not valid UTF-8' }]
    expect(await refused({ text })).toMatchObject({ status: 400, code: 'invalid_request', errors })
  })

  test('is refused when it is too large, whether its length was declared or not', async () => {
    const text = JSON.stringify({ reason: 'x'.repeat(65_536) })
    expect(await refused({ text })).toMatchObject({ status: 413, code: 'too_large' })
    expect(await refused({ text, headers: { 'content-length': String(text.length) } })).toMatchObject({ status: 413, code: 'too_large' })
  })

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', 'multipart/form-data; boundary=x', 'json'])(
    'is refused as %s',
    async (type) => {
      expect(await refused({ text: '{"reason":"a"}', headers: { 'content-type': type } })).toMatchObject({
        status: 415,
        code: 'unsupported_media_type',
      })
    },
  )

  test('is read whatever stands between its type and a parameter of that', async () => {
    for (const type of ['application/json;charset=utf-8', 'application/json ; charset=utf-8', 'application/json \t;  charset=utf-8'])
      expect(await refused({ text: '{"nothing_of_ours":1}', headers: { 'content-type': type } }), type).toMatchObject({ status: 400 })
  })

  test('may be nothing at all, under any type, where the call needs none, and is one without its fields where it does', async () => {
    for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain']) {
      const problem = await refused({ text: '', headers: { 'content-type': type } })
      if (call.operation.requestBody!.required) expect(problem, type).toMatchObject({ status: 400, code: 'invalid_request' })
      else expect(problem, type).toMatchObject({ status: 404, code: 'not_found' })
    }
  })

  test('is refused without a type', async () => {
    // A Request of the platform gives text a type of its own; bytes get none.
    expect(await refused({ text: Buffer.from('{"reason":"a"}'), headers: { 'content-type': '' } })).toMatchObject({ status: 415 })
  })
})

describe('each field of a request', () => {
  const strict = buildHouse({ parts: { rates: { issue: { burst: 1_000_000, perSecond: 1 } } } })

  const selector = { agent: 'a', owner: 'o', issuer: 'i', kind: 'k', grant: 'g', provider: 'p', everything: true }
  const grant = { name: 'g', parameters: { customer: 'acme' }, ttl: '1m' }
  const timing = { duration: '5m', deadline: '2026-11-24T09:40:00Z' }
  /** Bodies in which every field stands. What cannot stand together is a fault of its own. */
  const whole: Readonly<Record<string, object>> = {
    'POST /tasks': { kind: 'k', purpose: 'p', ...timing, grants: [grant], labels: { run: '8841' } },
    'POST /tasks/{id}/leases': grant,
    'POST /tasks/{id}/renew': timing,
    'POST /tasks/{id}/complete': {},
    'POST /tasks/{id}/revoke': { reason: 'r' },
    'POST /leases/{id}/refresh': {},
    'POST /leases/{id}/revoke': { reason: 'r' },
    'POST /revocations': { selector, dry_run: false, reason: 'r', confirm: 'c', stop_issuing: '1h' },
    'POST /stops': { selector, reason: 'r', duration: '1h' },
    'POST /stops/{id}/lift': { reason: 'r' },
  }
  const wrong = [-7.5, '', 'x'.repeat(5_000), 'a\0', [[]], { 'a b': { c: 1 } }, null, true, undefined]

  /** The pointers of the faults that are answered. */
  async function saysWhatIsWanted(path: string, asked: Asked): Promise<readonly string[]> {
    const answer = await strict.ask(path, asked)
    if (answer.status !== 400) return []
    const { errors } = (await answer.json()) as { errors: readonly { readonly pointer: string; readonly message: string }[] }
    for (const { pointer, message } of errors) expect(message, `${path} ${pointer}`).not.toMatch(emptyWords)
    return errors.map(({ pointer }) => pointer)
  }

  test.each(withJson)(
    'is named where its value is wrong in the body of $name, and what is wanted is said in the words of the house',
    async (call) => {
      const body = whole[call.name]
      expect(body).toBeDefined()
      for (const place of placesIn(body)) {
        const told: string[] = []
        for (const value of wrong) {
          const json = withAt(body, place, value)
          if (json !== undefined) told.push(...(await saysWhatIsWanted(call.path, sent(call, { token: allowed(call.operation), json }))))
        }
        const pointer = place.map((key) => `/${key}`).join('')
        expect(
          told.filter((at) => at.startsWith(pointer)),
          `faults of ${pointer}`,
        ).not.toEqual([])
      }
    },
  )

  test.each(guarded.filter((call) => queryOf(call).length > 0))('is named where its value is wrong in the query of $name', async (call) => {
    for (const name of queryOf(call)) {
      const beside = call.name === 'GET /ledger' && ['after', 'format'].includes(name) ? 'follow=true&' : ''
      const told: string[] = []
      for (const value of ['', 'x', 'x'.repeat(5_000), 'a%00', `1&${name}=2`])
        told.push(...(await saysWhatIsWanted(`${call.path}?${beside}${name}=${value}`, { token: allowed(call.operation) })))
      expect(told, `faults of ${name}`).toContain(`?${name}`)
    }
  })

  test('is named where its value is wrong in a form or a header', async () => {
    const form = async (text: string) =>
      await saysWhatIsWanted('/introspect', {
        method: 'POST',
        token: 'server',
        text,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      })
    expect(await form('')).toEqual(['/token'])
    expect(await form('token=')).toEqual(['/token'])
    expect(await form(`token=${'x'.repeat(16_385)}&token_type_hint=${'x'.repeat(65)}`)).toEqual(['/token', '/token_type_hint'])
    expect(await form('token=a&token=b')).toEqual(['/token'])

    const path = `/tasks/${newId('task')}/complete`
    expect(await saysWhatIsWanted(path, { method: 'POST', token: 'agent', headers: { prefer: 'x'.repeat(257) } })).toEqual(['prefer'])
  })
})

describe('addresses', () => {
  test('that do not exist are a problem too', async () => {
    for (const path of ['/', '/task', '/tasks/', '/tasks/x/y/z', '/..', '/tasks/%00', '//tasks', '/%E0%A4%A']) {
      expect(await house.problem(path, { token: 'agent' }), path).toMatchObject({ status: 404, code: 'not_found' })
    }
  })

  test.each(Object.entries(document.paths))('%s names its methods when it is asked with another', async (pattern, methods) => {
    const answer = await house.ask(fill(pattern), { method: 'DELETE', token: 'agent' })
    const allow = answer.headers.get('allow')!.split(', ')
    expect(answer.status).toBe(405)
    expect(await answer.json()).toMatchObject({ code: 'method_not_allowed', retry: 'no' })
    expect(allow).toEqual([...Object.keys(methods).map((method) => method.toUpperCase()), ...('get' in methods ? ['HEAD'] : [])].toSorted())
  })
})

test('every refusal that a call can give is in its document', () => {
  for (const call of guarded) {
    const statuses = Object.keys(call.operation.responses)
    for (const status of ['400', '401', '403', '404', '413', '415', '429', '500', '503', '504']) expect(statuses, call.name).toContain(status)
  }
  const all = new Set(guarded.flatMap((call) => Object.keys(call.operation.responses)))
  for (const [code, { status }] of Object.entries(onTheWire)) if (code !== 'method_not_allowed') expect(all, code).toContain(String(status))
})
