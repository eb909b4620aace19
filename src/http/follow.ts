import type { Ledger } from '../ledger/connect.ts'
import { readLogLines } from '../ledger/log-lines.ts'
import { lineText, type LogLine } from '../proof/lines.ts'
import { asOcsf } from './ocsf.ts'
import { createStreams, type StreamLimits } from './streams.ts'

/** What those who follow the ledger may cost. Milliseconds, and a count. */
export interface FollowLimits extends StreamLimits {
  /** After which a client has to come back with a token that is alive. It goes on where it was. */
  readonly longest: number
}

export const houseFollow: FollowLimits = { most: 32, share: 8, look: 1_000, silence: 15_000, patience: 30_000, longest: 15 * 60_000 }

/** How lines are sent: one JSON text a line, or as server-sent events (WHATWG HTML, section 9.2) whose id is the entry's number. */
export interface Form {
  frame(number: number, text: string): string
  readonly signOfLife: string
}

export const forms = {
  'application/x-ndjson': { frame: (_, text) => text, signOfLife: '\n' },
  'text/event-stream': { frame: (number, text) => `id: ${number}\ndata: ${text}\n`, signOfLife: ': still here\n\n' },
} satisfies Record<string, Form>

/** What is said of a line, as one line: all that is needed to verify it, or an event for a SIEM. */
export type Say = (line: LogLine) => string

export const formats = { ledger: lineText, ocsf: (line) => `${JSON.stringify(asOcsf(line))}\n` } satisfies Record<string, Say>

/** Sends the log as it grows. */
export interface Following {
  /** From the place `start` on. @param whose who follows. @throws BrokerError `rate_limited` where there are as many clients as there may be, or the broker stops */
  open(start: number, form: Form, say: Say, whose: string): ReadableStream<Uint8Array>
  /** Clients that are there. */
  count(): number
}

/** Lines of one look at most. */
const mostLines = 100

/** The store is looked at and not listened to: the log grows once a second at most, and a listener would need a way to catch up besides. */
export function createFollowing(ledger: Ledger, stop: AbortSignal, limits = houseFollow): Following {
  const streams = createStreams('followers of the ledger', stop, limits)
  return {
    count: () => streams.size,
    open(start, form, say, whose) {
      let place = start
      async function look(): Promise<string | undefined> {
        const lines = await readLogLines(ledger, place, mostLines)
        if (lines.length === 0) return undefined
        place = lines.at(-1)!.number + 1
        return lines.map((line) => form.frame(line.number, say(line))).join('')
      }
      return streams.open({ look, signOfLife: form.signOfLife, longest: limits.longest }, whose)
    },
  }
}
