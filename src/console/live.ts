import type { Clock } from '../base/time.ts'
import { createStreams, type StreamLimits } from '../http/streams.ts'
import { type Html, written } from './page.ts'

export const houseLive: StreamLimits = { most: 64, share: 8, look: 1_000, silence: 15_000, patience: 30_000 }

/** Pages that change while they are looked at, by server-sent events (WHATWG HTML, section 9.2). */
export interface Live {
  /**
   * Sends the regions that have changed, each as its id and its HTML, until the client goes, the session ends, or the broker stops.
   *
   * @param whose who looks
   * @throws BrokerError `rate_limited` where there are as many streams as there may be
   */
  open(regions: () => Promise<Record<string, Html>>, until: number, whose: string): ReadableStream<Uint8Array>
  /** Streams that are open. */
  readonly size: number
}

export function createLive(clock: Clock, stop: AbortSignal, limits: StreamLimits = houseLive): Live {
  const streams = createStreams('live pages', stop, limits)
  return {
    get size() {
      return streams.size
    },
    open(regions, until, whose) {
      const sent = new Map<string, string>()
      async function look(): Promise<string | undefined> {
        const changed: Record<string, string> = {}
        for (const [id, content] of Object.entries(await regions())) {
          const text = await written(content)
          if (sent.get(id) !== text) changed[id] = text
          sent.set(id, text)
        }
        return Object.keys(changed).length === 0 ? undefined : `data: ${JSON.stringify(changed)}\n\n`
      }
      // By the timer too: a clock that is set back would keep it open for as much longer.
      return streams.open({ look, signOfLife: ': still here\n\n', goesOn: () => clock() < until, longest: until - clock() }, whose)
    },
  }
}
