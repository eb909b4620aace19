// A backend of kind `http`. Its credentials open GET /hello and nothing else: put your own system where the comments say so.
// TOKEN=… PORT=8080 node example-server.mjs
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

const leases = new Map() // By lease. A real backend keeps it on disk: what has ended must stay ended.
const alive = (lease) => Boolean(lease?.secret) && !lease.ended && Date.now() < Date.parse(lease.expires_at)
const refusal = (status, title) => [status, { status, title, alive: false }, 'application/problem+json']

const answers = {
  PUT(id, asked) {
    if (leases.get(id)?.ended || !(Date.parse(asked.expires_at) > Date.now())) return refusal(410, 'this lease has ended')
    const secret = randomBytes(32).toString('base64url') // Mint here, with an end of its own; a second PUT replaces what the first one made.
    leases.set(id, { secret, expires_at: asked.expires_at })
    return [201, { credential: { type: 'bearer_token', token: secret }, expires_at: asked.expires_at }]
  },
  DELETE(id) {
    leases.set(id, { ...leases.get(id), ended: true }) // End it here, and answer when it is dead. An id never seen is remembered too.
    return [204]
  },
  GET(id) {
    const lease = leases.get(id)
    return lease ? [200, { lease: id, state: alive(lease) ? 'live' : 'ended', minted: Boolean(lease.secret) }] : refusal(404, 'no such lease')
  },
}

const digest = (text) => createHash('sha256').update(text).digest()
const server = createServer(async (request, response) => {
  const [, noun, id] = request.url.split('/')
  const bearer = digest(request.headers.authorization ?? '')
  const shows = (token) => timingSafeEqual(bearer, digest(`Bearer ${token}`))
  const body = Buffer.concat(await request.take(64).toArray()) // 64 chunks are more than the largest request of the broker.
  const [status, json, type = 'application/json'] =
    noun === 'hello'
      ? [[...leases.values()].some((lease) => alive(lease) && shows(lease.secret)) ? 200 : 401]
      : !shows(process.env.TOKEN)
        ? [401]
        : noun === 'check'
          ? [204]
          : noun === 'leases' && id && request.method in answers
            ? answers[request.method](id, body.length > 0 ? JSON.parse(body) : {})
            : refusal(404, 'not in the contract')
  response.writeHead(status, json ? { 'content-type': type } : {}).end(json && JSON.stringify(json))
})
server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => console.log(`listening on port ${server.address().port}`))
