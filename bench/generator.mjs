import { connect } from 'node:net'

// The load generator, a process of its own: keep-alive sockets that write prepared bytes and read as little of the answer as they can.
// It takes orders `{ targets, inFlight, requests, count, keep }` over IPC and answers `{ seconds, latencies, statuses, bodies }`. `requests` are
// heads and bodies as text; with `count` they are used in a circle until so many were sent, else each once.
process.on('message', (order) => {
  run(order).then(
    (result) => process.send(result),
    (error) => process.send({ error: String(error) }),
  )
})

async function run({ targets, inFlight, requests, count = requests.length, keep = false }) {
  const latencies = []
  const statuses = {}
  const bodies = []
  let sent = 0
  const next = () => (sent < count ? requests[sent++ % requests.length] : undefined)
  const started = process.hrtime.bigint()
  const tell = (status, body, milliseconds) => {
    latencies.push(milliseconds)
    statuses[status] = (statuses[status] ?? 0) + 1
    if (keep) bodies.push(body)
  }
  await Promise.all(Array.from({ length: inFlight }, (_, index) => client(targets[index % targets.length], next, tell)))
  return { seconds: Number(process.hrtime.bigint() - started) / 1e9, latencies, statuses, bodies }
}

function client({ host, port }, next, tell) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host)
    // Undefined while nothing is asked.
    let since
    let rest = Buffer.alloc(0)
    const write = () => {
      const request = next()
      if (request === undefined) return socket.end(() => resolve())
      since = process.hrtime.bigint()
      return socket.write(request)
    }
    socket.setNoDelay(true)
    socket.on('connect', write)
    socket.on('error', reject)
    socket.on('close', () => (since === undefined ? resolve() : reject(new Error('the connection was closed before the answer had come'))))
    socket.on('data', (chunk) => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      const end = rest.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = rest.toString('latin1', 0, end)
      const length = /content-length: (\d+)/i.exec(head)
      if (!length) return void socket.destroy(new Error(`an answer without a length: ${head}`))
      const whole = end + 4 + Number(length[1])
      if (rest.length < whole) return
      tell(head.slice(9, 12), rest.toString('utf8', end + 4, whole), Number(process.hrtime.bigint() - since) / 1e6)
      rest = Buffer.alloc(0)
      since = undefined
      write()
    })
  })
}
