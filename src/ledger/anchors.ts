import { randomUUID } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { describe } from '../base/errors.ts'
import { unlessMissing } from '../base/missing.ts'
import { within } from '../base/signal.ts'
import { delay } from '../base/time.ts'
import { checkpointIn } from '../proof/checkpoint.ts'
import type { WitnessKey } from '../proof/cosignature.ts'
import { verifyConsistency } from '../proof/merkle.ts'
import type { Telemetry } from '../telemetry.ts'
import { createWitness, type ProveGrowth } from './witness.ts'

/** A place outside the database where checkpoints are kept: a file that something else takes away, or whoever takes them by HTTP. */
export type AnchorSettings =
  | { readonly file: string }
  /** Who looks whether each checkpoint contains the last, and says so in `file`, which holds the newest that was cosigned. */
  | { readonly witness: string; readonly key: WitnessKey; readonly file: string }
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

/** @param prove what a witness is shown, and what a file is not overwritten without */
export function startAnchors(all: readonly AnchorSettings[], prove: ProveGrowth, { log, metrics }: Telemetry, trying = usual): Anchors {
  const stopping = new AbortController()
  const anchors = all.map((settings, index) => createAnchor(settings, String(index)))

  function createAnchor(settings: AnchorSettings, name: string) {
    const keepAt = keeping(settings, prove)
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
          await keepAt(note, trying.timeout, stopping.signal)
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

/** How a checkpoint is kept at one anchor. @param timeout milliseconds, of each request */
type Keep = (note: string, timeout: number, stop: AbortSignal) => Promise<void>

function keeping(settings: AnchorSettings, prove: ProveGrowth): Keep {
  if ('witness' in settings) {
    const witness = createWitness(settings.key, prove)
    const url = `${settings.witness.replace(/\/$/, '')}/add-checkpoint`
    return async (note, timeout, stop) =>
      await replace(settings.file, await witness.cosign(note, (body) => post(url, body, {}, timeout, stop, answerOf)))
  }
  if ('url' in settings) {
    return async (note, timeout, stop) => {
      const token = settings.tokenFile === undefined ? undefined : (await readFile(settings.tokenFile, 'utf8')).trim()
      await post(settings.url, note, token === undefined ? {} : { authorization: `Bearer ${token}` }, timeout, stop, taken)
    }
  }
  return async (note) => {
    if (!(await covers(settings.file, note, prove))) await replace(settings.file, note)
  }
}

/**
 * Whether a file holds a checkpoint that goes on from this one, as another broker has put it there. What is none, or of another log, covers nothing.
 *
 * @throws Error where the two are not of one history: what the file holds is then all that shows it, and is not to be lost
 */
async function covers(file: string, note: string, prove: ProveGrowth): Promise<boolean> {
  const [held, next] = [checkpointIn((await readFile(file, 'utf8').catch(unlessMissing)) ?? ''), checkpointIn(note)]
  if (!held || !next || held.origin !== next.origin) return false
  const [from, to] = held.size > next.size ? [next, held] : [held, next]
  const path = await prove(to, from.size)
  if (path && verifyConsistency(from, to, path)) return to === held
  throw new Error(`the file holds a checkpoint over ${held.size} entries of another history of the log than this one over ${next.size}`)
}

/** Characters of an answer that are read: a witness says one line for each of its keys. */
const longestAnswer = 65_536

/** What a witness says. What is too long is cut off, and with it the connection. */
async function answerOf({ status, body }: Response): Promise<{ status: number; text: string }> {
  let text = ''
  for await (const part of body?.pipeThrough(new TextDecoderStream()) ?? []) if ((text += part).length > longestAnswer) break
  return { status, text }
}

/** What a receiver says besides its status is not waited for. */
async function taken({ ok, status, body }: Response): Promise<void> {
  await body?.cancel()
  if (!ok) throw new Error(`the answer was ${status}`)
}

async function post<Answer>(
  url: string,
  body: string,
  headers: Readonly<Record<string, string>>,
  timeout: number,
  stop: AbortSignal,
  read: (response: Response) => Promise<Answer>,
): Promise<Answer> {
  return await within(timeout, stop, outOfTime, async (signal) => {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'text/plain; charset=utf-8', ...headers },
      body,
      // Not followed, since the token would travel along.
      redirect: 'manual',
      signal,
    })
    return await read(response)
  })
}

const outOfTime = (): Error => new Error('no answer in time')

/** As a whole or not at all: whoever reads the file at any moment finds a checkpoint. */
async function replace(file: string, note: string): Promise<void> {
  // By no name that another broker may have: in its container each is process 1.
  const draft = `${file}.${randomUUID()}.new`
  try {
    await writeFile(draft, note, { mode: 0o644, flag: 'wx' })
    await rename(draft, file)
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {})
    throw error
  }
}
