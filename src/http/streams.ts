import { BrokerError } from '../base/errors.ts'
import { createPlaces, type Room } from './places.ts'

/** What streams that go on until somebody ends them may cost. Milliseconds. */
export interface StreamLimits extends Room {
  /** Between two looks. */
  readonly look: number
  /** After which one without news is sent a sign of life, so that no proxy takes it for dead. */
  readonly silence: number
  /** After which a client that has not read what it was sent is dropped. */
  readonly patience: number
}

/** What one of them sends. */
export interface News {
  /** What has come since it was last asked. Undefined: nothing has. A rejection ends the stream: the store may be away for a moment, and the client comes back. */
  look(): Promise<string | undefined>
  readonly signOfLife: string
  /** Asked before each look; false ends the stream. */
  readonly goesOn?: () => boolean
  /** Milliseconds after which it ends in any case. */
  readonly longest?: number
}

export interface Streams {
  /**
   * @param whose the caller's name, the same whenever they come
   * @throws BrokerError `rate_limited` where there are as many as there may be, in all or of this caller, or the broker stops
   */
  open(news: News, whose: string): ReadableStream<Uint8Array>
  /** Those that are open. */
  readonly size: number
}

/**
 * Streams of which nothing is made before the client has taken what was made before: one that never reads costs a place and one look's news, and those for
 * as long as `patience`.
 *
 * @param what they are called by those who open them, such as `live pages`
 * @param stop fires when the broker stops: a stream would hold its server for as long as somebody reads
 */
export function createStreams(what: string, stop: AbortSignal, limits: StreamLimits): Streams {
  const places = createPlaces(what, limits)
  /** What ends each. */
  const open = new Set<() => void>()
  stop.addEventListener('abort', () => [...open].forEach((end) => end()), { once: true })

  return {
    get size() {
      return places.taken
    },

    open(news, whose) {
      if (stop.aborted) throw new BrokerError('rate_limited', 'This broker is stopping', { retryAfter: 30 })
      const giveBack = places.take(whose)
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
        giveBack()
        wake()
        last()
      }
      const end = (): void => leave(() => controller.close())
      const wait = (): void => {
        unread = setTimeout(() => leave(() => controller.error(new Error('the client does not read'))), limits.patience)
      }
      const longest = news.longest === undefined ? undefined : setTimeout(end, news.longest)

      const pause = (): Promise<void> =>
        new Promise((resolve) => {
          const timer = setTimeout(resolve, limits.look)
          wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })

      /** What has come, or a sign of life. Undefined: it has ended, or is to. */
      async function next(): Promise<string | undefined> {
        for (let waited = 0; !ended && (news.goesOn?.() ?? true); waited += limits.look) {
          const found = await news.look()
          if (found !== undefined) return found
          if (waited >= limits.silence) return news.signOfLife
          await pause()
        }
        return undefined
      }

      return new ReadableStream<Uint8Array>(
        {
          start(given) {
            controller = given
            open.add(end)
            wait()
          },
          async pull() {
            clearTimeout(unread)
            const text = await next().catch(() => undefined)
            if (ended) return
            if (text === undefined) return end()
            controller.enqueue(encoder.encode(text))
            wait()
          },
          cancel: () => leave(() => {}),
        },
        // Nothing ahead of the reader.
        { highWaterMark: 0 },
      )
    },
  }
}

const encoder = new TextEncoder()
