import { BrokerError } from '../base/errors.ts'

/** What streams that go on until somebody ends them may cost. Milliseconds, and a count. */
export interface StreamLimits {
  /** At once, on this broker. */
  readonly most: number
  /** Of them, for one caller: nobody shuts the others out. */
  readonly share: number
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
   * @throws BrokerError `rate_limited` where there are as many as there may be, or the broker stops
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
  /** What ends each, and whose it is. */
  const open = new Map<() => void, string>()
  stop.addEventListener('abort', () => [...open.keys()].forEach((end) => end()), { once: true })
  const refused = (detail: string) => new BrokerError('rate_limited', detail, { retryAfter: 30 })

  return {
    get size() {
      return open.size
    },

    open(news, whose) {
      if (stop.aborted) throw refused('This broker is stopping')
      if (open.size >= limits.most) throw refused(`This broker has as many ${what} as it keeps: ${limits.most}`)
      const own = [...open.values()].filter((one) => one === whose).length
      if (own >= limits.share) throw refused(`You have as many ${what} as one caller may: ${limits.share}`)
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
            open.set(end, whose)
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
