import { readFile, rename, writeFile } from 'node:fs/promises'
import { describe } from '../base/errors.ts'
import { delay } from '../base/time.ts'
import type { Telemetry } from '../telemetry.ts'

/** A place outside the database where checkpoints are kept: a file that something else takes away, or whoever takes them by HTTP. */
export type AnchorSettings =
  | { readonly file: string }
  | {
      readonly url: string
      /** Read at each use. Absolute. */
      readonly tokenFile?: string
    }

/** Takes checkpoints to where whoever owns the database cannot change them. */
export interface Anchors {
  /** Never waits, and never fails: the log is not held back. Of several that come while one is under way, the newest is written; it covers the others. */
  write(note: string): void
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** How an anchor is tried. Milliseconds, and a count. */
export interface Trying {
  readonly timeout: number
  readonly tries: number
  /** Before the second try; doubled with each. */
  readonly pause: number
}

/** All tries of one checkpoint end within two minutes. The next checkpoint, which covers it, begins anew. */
const usual: Trying = { timeout: 10_000, tries: 5, pause: 2_000 }

export function startAnchors(all: readonly AnchorSettings[], { log, metrics }: Telemetry, trying = usual): Anchors {
  const stopping = new AbortController()
  const anchors = all.map((settings, index) => createAnchor(settings, String(index)))

  function createAnchor(settings: AnchorSettings, name: string) {
    let waiting: string | undefined
    let running: Promise<void> | undefined

    async function run(): Promise<void> {
      while (waiting !== undefined && !stopping.signal.aborted) {
        const note = waiting
        waiting = undefined
        await keep(note)
      }
      running = undefined
    }

    /** Until it is there, a newer one has come, or it was tried often enough. */
    async function keep(note: string): Promise<void> {
      for (let attempt = 1; ; attempt++) {
        try {
          await writeTo(settings, note, trying.timeout, stopping.signal)
          metrics.anchors.inc({ anchor: name, outcome: 'kept' })
          return
        } catch (error) {
          if (stopping.signal.aborted) return
          metrics.anchors.inc({ anchor: name, outcome: 'failed' })
          const isLast = attempt >= trying.tries || waiting !== undefined
          if (isLast) log.error({ anchor: name, error: describe(error) }, 'a checkpoint could not be anchored; the next one is tried')
          if (isLast) return
        }
        await delay(trying.pause * 2 ** (attempt - 1), stopping.signal).catch(() => {})
      }
    }

    return {
      write(note: string): void {
        waiting = note
        running ??= run()
      },
      ended: async () => await running,
    }
  }

  async function stop(): Promise<void> {
    stopping.abort()
    await Promise.all(anchors.map(({ ended }) => ended()))
  }
  return {
    write: (note) => {
      for (const anchor of anchors) anchor.write(note)
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

async function writeTo(settings: AnchorSettings, note: string, timeout: number, stop: AbortSignal): Promise<void> {
  if ('file' in settings) return await replace(settings.file, note)
  const token = settings.tokenFile === undefined ? undefined : (await readFile(settings.tokenFile, 'utf8')).trim()
  const ending = new AbortController()
  const end = (): void => ending.abort(stop.reason)
  stop.addEventListener('abort', end, { once: true })
  // A timer of our own: on Node 20 a timeout inside `AbortSignal.any` can be collected before it fires (nodejs/node issue 57736).
  const timer = setTimeout(() => ending.abort(new Error('no answer in time')), timeout)
  try {
    const response = await fetch(settings.url, {
      method: 'POST',
      headers: { 'content-type': 'text/plain; charset=utf-8', ...(token !== undefined && { authorization: `Bearer ${token}` }) },
      body: note,
      // Not followed, since the token would travel along.
      redirect: 'manual',
      signal: ending.signal,
    })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`the answer was ${response.status}`)
  } finally {
    clearTimeout(timer)
    stop.removeEventListener('abort', end)
  }
}

/** As a whole or not at all: whoever reads the file at any moment finds a checkpoint. */
async function replace(file: string, note: string): Promise<void> {
  const draft = `${file}.${process.pid}.new`
  await writeFile(draft, note, { mode: 0o644 })
  await rename(draft, file)
}
