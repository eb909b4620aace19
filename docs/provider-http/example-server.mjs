// A whole backend of kind `http`. Its credentials open GET /hello; put your own system where the comments say so.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

const { TOKEN, PORT = 8080 } = process.env
if (!TOKEN) throw new Error('TOKEN is missing: the bearer token that the broker shows')
const leases = new Map() // By lease. A real backend keeps it on disk: what has ended must stay ended.
const alive = (lease) => Boolean(lease.secret) && !lease.ended && Date.now() < Date.parse(lease.expires_at)
const refusal = (status, title) => [status, { status, title, alive: false }] // `alive: false`: nothing of this lease works.
const answers = {
  PUT(id, { expires_at }) {
    if (leases.get(id)?.ended || !(Date.parse(expires_at) > Date.now())) return refusal(410, 'this lease has ended')
    const secret = randomBytes(32).toString('base64url') // Mint here, to end by itself at expires_at; a second PUT replaces the first.
    leases.set(id, { secret, expires_at })
    return [201, { credential: { type: 'bearer_token', token: secret }, expires_at }]
  },
  DELETE(id) {
    leases.set(id, { ...leases.get(id), ended: true }) // End it here, and answer once it is dead. An id never seen is remembered too.
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
  const shows = (token) => timingSafeEqual(digest(request.headers.authorization ?? ''), digest(`Bearer ${token}`))
  let [status, body] = refusal(404, 'not in the contract')
  if (noun === 'hello') [status, body] = [[...leases.values()].some((lease) => alive(lease) && shows(lease.secret)) ? 200 : 401]
  else if (!shows(TOKEN)) [status, body] = [401]
  else if (noun === 'check') [status, body] = [204]
  else if (noun === 'leases' && Object.hasOwn(answers, request.method)) {
    const text = Buffer.concat(await request.take(64).toArray()).toString() // 64 chunks: more than the broker ever sends.
    ;[status, body] = answers[request.method](id, text && JSON.parse(text))
  }
  const type = status < 300 ? 'application/json' : 'application/problem+json'
  response.writeHead(status, body && { 'content-type': type }).end(body && JSON.stringify(body))
})
server.listen(PORT, '127.0.0.1', () => console.log(`listening on port ${server.address().port}`))
