import type { Ledger } from '../ledger/connect.ts'
import { readLogLines } from '../ledger/log-lines.ts'
import { lineText, type LogLine } from '../proof/lines.ts'

/** What those who follow the ledger may cost. Milliseconds, and counts. */
export interface FollowLimits {
  /** At once, on this broker. */
  readonly clients: number
  /** Between two looks. */
  readonly look: number
  /** After which one without news is sent a sign of life, so that no proxy takes it for dead. */
  readonly silence: number
  /** After which a client that has not read what it was sent is dropped. */
  readonly patience: number
  /** After which a client has to come back with a token that is alive. It goes on where it was. */
  readonly longest: number
}

export const houseFollow: FollowLimits = { clients: 32, look: 1_000, silence: 15_000, patience: 30_000, longest: 15 * 60_000 }

/** How lines are sent: one JSON text a line, or as server-sent events (WHATWG HTML, section 9.2) whose id is the entry's number. */
export interface Form {
  line(line: LogLine): string
  readonly signOfLife: string
}

export const forms = {
  'application/x-ndjson': { line: lineText, signOfLife: '\n' },
  'text/event-stream': { line: (line) => `id: ${line.number}\ndata: ${lineText(line)}\n`, signOfLife: ': still here\n\n' },
} satisfies Record<string, Form>

/** Sends the log as it grows. */
export interface Following {
  /** From the place `start` on. Undefined where there are as many clients as there may be, or the broker stops. */
  open(start: number, form: Form): ReadableStream<Uint8Array> | undefined
  /** Clients that are there. */
  count(): number
}

/** Lines of one look at most. */
const mostLines = 100

/**
 * Nothing is read from the store before the client has taken what was read before, so one that never reads costs a place and a page of lines, and those for
 * half a minute. The store is looked at and not listened to: the log grows once a second at most, and a listener would need a way to catch up besides.
 *
 * @param stop fires when the broker stops: a stream would hold its server for as long as somebody reads
 */
export function createFollowing(ledger: Ledger, stop: AbortSignal, limits = houseFollow): Following {
  const open = new Set<() => void>()
  stop.addEventListener('abort', () => open.forEach((end) => end()), { once: true })
  const encoder = new TextEncoder()

  return {
    count: () => open.size,

    open(start, form) {
      if (stop.aborted || open.size >= limits.clients) return undefined
      let place = start
      let ended = false
      let wake = (): void => {}
      let unread: NodeJS.Timeout | undefined
      let controller: ReadableStreamDefaultController<Uint8Array>

      function leave(last: () => void): void {
        if (ended) return
        ended = true
        clearTimeout(unread)
        clearTimeout(longest)
        open.delete(end)
        wake()
        last()
      }
      const end = (): void => leave(() => controller.close())
      const longest = setTimeout(end, limits.longest)

      const pause = (): Promise<void> =>
        new Promise((resolve) => {
          const timer = setTimeout(resolve, limits.look)
          wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })

      /** What has come, or a sign of life. Undefined: it has ended meanwhile. */
      async function next(): Promise<string | undefined> {
        for (let waited = 0; !ended; waited += limits.look) {
          const lines = await readLogLines(ledger, place, mostLines)
          if (lines.length > 0) {
            place = lines.at(-1)!.number + 1
            return lines.map((line) => form.line(line)).join('')
          }
          if (waited >= limits.silence) return form.signOfLife
          await pause()
        }
        return undefined
      }

      return new ReadableStream<Uint8Array>(
        {
          start(given) {
            controller = given
            open.add(end)
          },
          async pull() {
            clearTimeout(unread)
            // The store may be away for a moment: the client comes back by itself, with the number that it has.
            const text = await next().catch(() => end())
            if (text === undefined || ended) return
            controller.enqueue(encoder.encode(text))
            unread = setTimeout(() => leave(() => controller.error(new Error('the client does not read'))), limits.patience)
          },
          cancel: () => leave(() => {}),
        },
        // Nothing ahead of the reader.
        { highWaterMark: 0 },
      )
    },
  }
}
