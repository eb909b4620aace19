import { Agent, request } from 'node:http'

// Agents, operators, reviewers and resource servers in a process of their own. It takes orders `{ url, tokens, cookie, story, inFlight, seconds, least }`
// over IPC: that many workers play a story again and again, for so many seconds and `least` times at least. It answers `{ answers, surprises }`: how many
// answers of which status each call got, and every answer that its story did not expect. A call that is made again with its Idempotency-Key counts by
// itself, and so does a stream, which is left with its first news.
process.on('message', (order) => {
  play(order).then(
    (result) => process.send(result),
    (error) => process.send({ error: String(error) }),
  )
})

/** Tasks that the last order to declare has opened, for the stories that need one. */
let open = []

async function play({ url, tokens, cookie, story, inFlight, seconds, least = 0 }) {
  if (story === 'declare') open = []
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight })
  const answers = {}
  const surprises = []
  const until = performance.now() + seconds * 1_000
  let played = 0

  /** One call. @param route as the API's document names it, `{id}` being what stands in `id` */
  async function ask(route, { as, id = '', query = '', json, form, expect = [200], headers = {}, path, how = '' }) {
    const [method, template] = route.split(' ')
    const body = form ?? (json === undefined ? undefined : JSON.stringify(json))
    const type = form === undefined ? 'application/json' : 'application/x-www-form-urlencoded'
    const sent = {
      ...(as !== undefined && { authorization: `Bearer ${as}` }),
      ...(body !== undefined && { 'content-type': type, 'content-length': Buffer.byteLength(body) }),
      ...headers,
    }
    const answer = await send(url + (path ?? template.replace(/\{\w+\}/, id)) + query, { method, headers: sent, agent }, body, how === 'watched')
    const call = `${route} ${how}`.trim()
    answers[call] ??= {}
    answers[call][answer.status] = (answers[call][answer.status] ?? 0) + 1
    if (!expect.includes(answer.status)) surprises.push({ route, status: answer.status, text: answer.text.slice(0, 300) })
    return answer.type.startsWith('application/json') ? JSON.parse(answer.text) : undefined
  }

  const surprise = (text) => surprises.push({ text })
  async function worker(number) {
    for (let turn = 0; performance.now() < until || played < least; turn++) {
      played++
      await stories[story]({ ask, surprise, tokens, cookie, number: number + turn * inFlight })
    }
  }
  await Promise.all(Array.from({ length: inFlight }, (_, number) => worker(number)))
  agent.destroy()
  return { answers, surprises }
}

/** @param leave once something has come, for what sends without end */
function send(url, options, body, leave) {
  return new Promise((resolve, reject) => {
    const sent = request(url, options, (answer) => {
      const parts = []
      const done = () =>
        resolve({ status: answer.statusCode, type: answer.headers['content-type'] ?? '', text: Buffer.concat(parts).toString('utf8') })
      answer.on('data', (part) => {
        parts.push(part)
        if (!leave) return
        done()
        answer.destroy()
      })
      answer.on('error', reject)
      answer.on('end', done)
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

const declaration = (...grants) => ({ kind: 'work', purpose: 'a load', duration: '10m', grants: grants.map((name) => ({ name })) })

/** Keys that were used so far, by all orders. */
let keys = 0

/** A task from its declaration to its end, through every call about it; every third is declared twice, as if the answer had been lost. An answer that is not there was a surprise, and ends the story. */
async function life({ ask, surprise, tokens, number }) {
  const as = number % 3 === 0 ? tokens.rival : tokens.bot
  const grants = number % 2 === 0 ? ['api', 'crm'] : ['api']
  const headers = number % 3 === 1 ? { 'idempotency-key': `run-${process.pid}-${keys++}` } : {}
  const asked = { as, json: declaration(...grants), expect: [201], headers }
  const first = await ask('POST /tasks', asked)
  const opened = headers['idempotency-key'] ? await ask('POST /tasks', { ...asked, how: 'again' }) : first
  if (!opened?.task) return
  if (opened.task.id !== first?.task.id) surprise('a retry with its key became another task')
  const { task, leases, decision } = opened
  const own = opened.task_token
  const api = leases.find(({ grant }) => grant === 'api')
  const form = `token=${api.credential.token}`
  if ((await ask('POST /introspect', { as: tokens.api, form }))?.active !== true) surprise('a living token was called dead')
  await ask('GET /tasks/{id}', { as: own, id: task.id })
  await ask('POST /tasks/{id}/leases', { as: own, id: task.id, json: { name: 'api' }, expect: [201] })
  await ask('POST /leases/{id}/refresh', { as, id: api.id, json: {} })
  await ask('POST /tasks/{id}/renew', { as, id: task.id, json: { duration: '15m' } })
  await ask('GET /leases/{id}', { as: own, id: leases.at(-1).id })
  await ask('GET /decisions/{id}', { as: tokens.reader, id: decision.id })
  await ask('GET /decisions/{id}/replay', { as: tokens.reader, id: decision.id })
  await ask('GET /policies/{digest}', { as: tokens.reader, id: decision.policy_digest })
  if (number % 5 === 0) await ask('POST /leases/{id}/revoke', { as: tokens.ops, id: api.id, json: { reason: 'a load' } })
  const ended =
    number % 7 === 0
      ? await ask('POST /tasks/{id}/revoke', { as: tokens.ops, id: task.id, json: { reason: 'a load' }, headers: patient })
      : await ask('POST /tasks/{id}/complete', { as: own, id: task.id, json: {}, headers: patient })
  if (ended?.ended !== true) surprise('a task was not ended')
  if ((await ask('POST /introspect', { as: tokens.api, form }))?.active !== false) surprise('a dead token was called living')
}

/** Of so many, on a busy machine, some send nothing for so long that they are cut off. */
function unlessCut(error) {
  if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') throw error
}

/** Waits longer for an end than a busy machine stands still. */
const patient = { prefer: 'wait=30' }

async function look({ ask, tokens, cookie, number }) {
  const as = tokens.reader
  const odd = Math.floor(number / 8) % 2 === 1
  const tasks = await ask('GET /tasks', { as, query: odd ? '?limit=20&state=open' : '?limit=20' })
  await ask('GET /leases', { as, query: odd ? '?limit=20&provider=lab' : '?limit=20&stuck=true' })
  await ask('GET /ledger', { as, query: '?limit=20', headers: { accept: ['application/json', 'text/csv', 'application/x-ndjson'][number % 3] } })
  await ask('GET /denials', { as, query: '?limit=20' })
  // The log begins a second after the first entry, and an entry has its place a second after it was written.
  await ask('GET /checkpoint', { as, expect: [200, 404] })
  await ask('GET /ledger/key', { as })
  await ask('GET /ledger/logs', { as })
  await ask('GET /ledger/log', { as, query: '?limit=20' })
  await ask('GET /tile/{level}/{place}', { as, path: '/tile/0/000', expect: [200, 404] })
  // Nobody rotates its key meanwhile.
  await ask('GET /log/{log}/checkpoint', { as, id: '2', expect: [404] })
  await ask('GET /log/{log}/tile/{level}/{place}', { as, path: '/log/2/tile/0/000', expect: [404] })
  const entries = await ask('GET /ledger', { as, query: '?limit=200', headers: { accept: 'application/json' } })
  await ask('GET /ledger/{entry}/proof', { as, id: entries?.items.at(-1).id, expect: [200, 404] })
  await many({ ask, tokens })
  const followed = { as, query: '?follow=true', headers: { accept: odd ? 'text/event-stream' : 'application/x-ndjson' } }
  await ask('GET /ledger', { ...followed, how: 'watched' })
  if (cookie) await visit({ ask, headers: { cookie }, task: tasks?.items[0]?.id })
  for (const route of ['/.well-known/jwks.json', '/.well-known/openid-configuration', '/openapi.json', '/docs', '/healthz', '/metrics'])
    await ask(`GET ${route}`, {})
  // A broker that stands still for a second, as on a busy machine, is not ready meanwhile.
  await ask('GET /readyz', { expect: [200, 503] })
}

/** Pages of the console, and what is live of them. */
async function visit({ ask, headers, task }) {
  for (const page of ['', '/ledger', '/ledger/leases', '/revoke']) await ask(`GET /console${page}`, { headers })
  await ask('GET /console/live', { headers, how: 'watched' })
  if (task === undefined) return
  await ask('GET /console/tasks/{id}', { headers, id: task })
  await ask('GET /console/tasks/{id}/live', { headers, id: task, how: 'watched' })
}

/** Revocations and stops of an agent that there is none of. */
async function many({ ask, tokens }) {
  const [as, selector, reason] = [tokens.ops, { agent: 'nobody' }, 'a load']
  await ask('POST /revocations', { as, json: { selector, dry_run: true } })
  const started = await ask('POST /revocations', { as, json: { selector, reason, confirm: 0 }, expect: [200, 201, 202] })
  await ask('GET /revocations', { as, query: '?limit=20' })
  await ask('GET /revocations/{id}', { as, id: started?.id })
  const stop = await ask('POST /stops', { as, json: { selector, reason, duration: '1m' }, expect: [200, 201] })
  await ask('GET /stops', { as, query: '?limit=20' })
  await ask('POST /stops/{id}/lift', { as, id: stop?.id, json: { reason } })
}

/** What is refused costs something, too. */
async function mischief({ ask, tokens, number }) {
  const task = 'task_01h455vb4pex5vsknk084sn02q'
  await ask('POST /tasks', { as: tokens.stranger, json: declaration('api'), expect: [403] })
  await ask('POST /tasks', { as: `${tokens.bot.slice(0, -8)}${String(number).padStart(8, '0')}`, json: declaration('api'), expect: [401] })
  await ask('POST /tasks', { as: tokens.bot, json: { kind: 'work', nothing: true }, expect: [400] })
  await ask('POST /tasks', { as: tokens.bot, json: declaration('nothing'), expect: [422] })
  await ask('POST /tasks/{id}/complete', { as: tokens.bot, id: task, json: {}, expect: [404] })
  await ask('POST /introspect', { as: tokens.api, form: 'token=nonsense' })
}

const stories = {
  mixed: (scene) => (scene.number % 8 === 0 ? mischief(scene) : scene.number % 4 === 0 ? look(scene) : life(scene)),

  // One call over and over.
  async declare({ ask, tokens }) {
    const opened = await ask('POST /tasks', { as: tokens.bot, json: declaration('api'), expect: [201] })
    if (opened?.task) open.push(opened)
  },
  // More than are let in are turned away at once, and those who wait too long for a turn at the store later.
  flood: ({ ask, tokens }) => ask('POST /tasks', { as: tokens.bot, json: declaration('api'), expect: [201, 408, 429, 503] }).catch(unlessCut),
  introspect: ({ ask, tokens, number }) => ask('POST /introspect', { as: tokens.api, form: `token=${taskAt(number).leases[0].credential.token}` }),
  show: ({ ask, number }) => ask('GET /tasks/{id}', { as: taskAt(number).task_token, id: taskAt(number).task.id }),
  refresh: ({ ask, tokens, number }) => ask('POST /leases/{id}/refresh', { as: tokens.bot, id: taskAt(number).leases[0].id, json: {} }),
  replay: ({ ask, tokens, number }) => ask('GET /decisions/{id}/replay', { as: tokens.reader, id: taskAt(number).decision.id }),
  complete: ({ ask, number }) => ask('POST /tasks/{id}/complete', { as: taskAt(number).task_token, id: taskAt(number).task.id, json: {} }),
}

const taskAt = (number) => open[number % open.length]
