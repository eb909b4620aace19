import type { Clock } from '../base/time.ts'
import type { Html } from './page.ts'

/** What the live pages may cost. Milliseconds, and a count of streams. */
export interface LiveLimits {
  /** Streams at once, on this broker. */
  readonly streams: number
  /** Between two looks. */
  readonly look: number
  /** After which a stream without news says that it is there, so that no proxy takes it for dead. */
  readonly silence: number
  /** After which a client that does not read what it was sent is dropped. */
  readonly patience: number
}

export const houseLive: LiveLimits = { streams: 64, look: 1_000, silence: 15_000, patience: 30_000 }

/** Pages that change while they are looked at, by server-sent events (WHATWG HTML, section 9.2). */
export interface Live {
  /**
   * Sends the regions that have changed, each as its id and its HTML, until the client goes, the session ends, or the broker stops.
   *
   * Nothing is made before the client has taken what was made before: one that never reads costs one event and its place, and those for half a minute.
   *
   * @returns undefined where there are as many streams as there may be
   */
  open(regions: () => Promise<Record<string, Html>>, until: number): ReadableStream<Uint8Array> | undefined
  /** Streams that are open. */
  readonly size: number
}

/** @param stop fires when the broker stops: a stream would hold its server for as long as somebody looks */
export function createLive(clock: Clock, stop: AbortSignal, limits: LiveLimits = houseLive): Live {
  const open = new Set<() => void>()
  stop.addEventListener('abort', () => open.forEach((end) => end()), { once: true })

  return {
    get size() {
      return open.size
    },
    open(regions, until) {
      if (stop.aborted || open.size >= limits.streams) return undefined
      const sent = new Map<string, string>()
      let unread: NodeJS.Timeout | undefined
      let wake = (): void => {}
      let ended = false
      let controller: ReadableStreamDefaultController<Uint8Array>

      const leave = (): boolean => {
        const first = !ended
        ended = true
        clearTimeout(unread)
        wake()
        open.delete(end)
        return first
      }
      const end = (): void => void (leave() && controller.close())
      const drop = (): void => void (leave() && controller.error(new Error('the client does not read')))

      /** Waits for the next look, or the end. */
      const pause = (): Promise<void> =>
        new Promise((resolve) => {
          const timer = setTimeout(resolve, limits.look)
          wake = () => (clearTimeout(timer), resolve())
        })

      async function news(): Promise<string | undefined> {
        const changed: Record<string, string> = {}
        for (const [id, content] of Object.entries(await regions())) {
          const text = (await content).toString()
          if (sent.get(id) !== text) changed[id] = text
          sent.set(id, text)
        }
        return Object.keys(changed).length === 0 ? undefined : `data: ${JSON.stringify(changed)}\n\n`
      }

      async function next(): Promise<string | undefined> {
        for (let waited = 0; !ended && clock() < until; waited += limits.look) {
          const found = await news()
          if (found !== undefined) return found
          if (waited >= limits.silence) return ': still here\n\n'
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
            // The store may be away for a moment: the client connects again by itself, and finds it back.
            const text = await next().catch(() => undefined)
            if (ended) return
            if (text === undefined) return end()
            controller.enqueue(encoder.encode(text))
            unread = setTimeout(drop, limits.patience)
          },
          cancel: () => void leave(),
        },
        // Nothing ahead of the reader.
        { highWaterMark: 0 },
      )
    },
  }
}

const encoder = new TextEncoder()
