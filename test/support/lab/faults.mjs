/**
 * What can go wrong with one call. Each fault is asked for once or several times, in order, by call. `done` says on which side of the fault the
 * work stands: false, it did not happen; true, it happened and the answer was lost.
 *
 * @param more answers that go wrong in ways of this backend's own: by name, like those in `spoil`
 */
export function createFaults(more = {}) {
  const spoils = { ...spoil, ...more }
  /** By call: faults that are still to come. */
  const coming = new Map()
  /** Questions that hang now, by call; a held one goes on when it is released. */
  const hanging = []
  const watchers = new Set()

  function hang(call, release) {
    hanging.push({ call, release })
    for (const watcher of watchers) watcher()
  }

  /** Answers a question, with what was ordered for this call. Work that comes to nothing is not answered. */
  async function answer(call, response, work) {
    const fault = coming.get(call)?.shift()
    if (!fault) return send(response, await work())
    if (fault.how === 'slow') return setTimeout(async () => send(response, await work()), fault.ms)
    if (fault.how === 'held' && !fault.done) return hang(call, async () => send(response, await work()))

    const done = fault.done ? await work() : undefined
    if (fault.how === 'held') return hang(call, () => send(response, done))
    if (fault.how === 'hangs') return hang(call, () => response.destroy())
    return spoils[fault.how](response, done, fault)
  }

  return {
    answer,
    order({ call, how, done = false, times = 1, ms = 200, to }) {
      if (!['slow', 'held', 'hangs', ...Object.keys(spoils)].includes(how)) throw new Error(`no such fault: ${how}`)
      coming.set(call, [...(coming.get(call) ?? []), ...Array.from({ length: times }, () => ({ how, done, ms, to }))])
    },
    clear: () => coming.clear(),
    /** Resolves once a question of this call hangs. */
    async untilHanging(call) {
      while (!hanging.some((question) => question.call === call)) {
        await new Promise((resolve) => watchers.add(resolve)).finally(() => watchers.clear())
      }
    },
    /** Lets every held question go on, and answers when all of their work is done. */
    release: () => Promise.all(hanging.splice(0).map((question) => question.release())),
  }
}

/** What is answered instead. `done` is the true answer where the work was done: some of it may be in what goes wrong. */
const spoil = {
  refuses: (response) => send(response, { status: 403, problem: true, body: { title: 'refused', status: 403, alive: false } }),
  'refuses without a word': (response) => send(response, { status: 403 }),
  fails: (response) => send(response, { status: 500, body: { error: 'the lab failed' } }),
  'is overloaded': (response) => send(response, { status: 503 }),
  resets: (response) => response.socket.resetAndDestroy(),
  garbage: (response, done) => send(response, { status: 200, body: { surprise: done?.body ?? true } }),
  'another media type': (response, done) => {
    response.writeHead(200, { 'content-type': 'text/html' })
    response.end(JSON.stringify(done?.body ?? {}))
  },
  half: (response, done) => {
    const text = JSON.stringify(done?.body ?? { half: true })
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length + 1 })
    response.write(text.slice(0, -4), () => response.destroy())
  },
  floods: (response) => send(response, { status: 200, body: { flood: 'x'.repeat(1_000_000) } }),
  redirects: (response, done, { to = 'http://127.0.0.1:9/elsewhere' }) => {
    response.writeHead(307, { location: to })
    response.end()
  },
  /** A credential that lives longer than its lease. */
  outlives: (response, done) => send(response, { ...done, status: 200, body: { ...done?.body, expires_at: '2999-01-01T00:00:00Z' } }),
  /** Accepted, but not finished: never evidence. */
  'promises it for later': (response) => send(response, { status: 202 }),
  forgets: (response) => send(response, { status: 404 }),
}

/** An ordinary answer. Nothing happens where the asker has gone. */
export function send(response, answer) {
  if (answer === undefined) return
  const { status, body, problem, headers } = answer
  if (body === undefined) return response.writeHead(status, headers).end()
  response.writeHead(status, { 'content-type': problem ? 'application/problem+json' : 'application/json', ...headers })
  return response.end(JSON.stringify(body))
}
