import { BrokerError } from '../../../base/errors.ts'
import { ProviderError } from '../../provider.ts'
import type { Pause } from './rounds.ts'

/** Looks until a generation is in force. Several are watched at once, each by itself: one that is, takes all before it along. */
export interface Watch {
  /** Resolves once the store knows that this generation is in force. @throws ProviderError where it could not be seen for a long time */
  until(generation: number, shut: boolean): Promise<void>
  /** Tells what the store knows, so that nobody looks for it any more. */
  known(confirmed: number): void
  /** Why nothing was learned when it was last looked, behind a colon; empty where something was. */
  readonly trouble: string
}

/** Milliseconds from one look to the next: at once, then these, doubling to the last. AWS takes about 4 s as a rule, and sometimes minutes. */
const first = 250
const longest = 5_000
/** Looks after which one stops, about ten minutes: whoever still waits begins anew. */
const mostLooks = 125
/** Generations watched at once. One that finds no place is watched when its list is next looked at. */
const mostWatched = 64

export function createWatch(of: {
  readonly inForce: (generation: number, shut: boolean) => Promise<boolean>
  /** Tells the store. */
  readonly confirm: (generation: number) => Promise<void>
  readonly pause: Pause
}): Watch {
  let confirmed = 0
  let trouble = ''
  const watched = new Map<number, Promise<void>>()

  async function look(generation: number, shut: boolean): Promise<void> {
    for (let wait = 0, looks = 0; looks < mostLooks; wait = Math.min(Math.max(first, wait * 2), longest), looks += 1) {
      if (wait > 0) await of.pause(wait)
      if (generation <= confirmed || (await isInForce(generation, shut))) return
    }
    throw new ProviderError('downstream', `generation ${generation} of the kill list was not seen in force`, 'maybe')
  }

  async function isInForce(generation: number, shut: boolean): Promise<boolean> {
    try {
      const seen = await of.inForce(generation, shut)
      if (seen) await of.confirm(generation)
      if (seen) confirmed = Math.max(confirmed, generation)
      trouble = ''
      return seen
    } catch (error) {
      if (!(error instanceof ProviderError) && !(error instanceof BrokerError)) throw error
      trouble = `: ${error.message}`
      return false
    }
  }

  return {
    get trouble() {
      return trouble
    },
    until(generation, shut) {
      if (generation <= confirmed) return Promise.resolve()
      const known = watched.get(generation)
      if (known) return known
      if (watched.size >= mostWatched) return Promise.reject(new ProviderError('downstream', 'too many generations are not in force yet', 'maybe'))
      const looking = look(generation, shut).finally(() => watched.delete(generation))
      watched.set(generation, looking)
      return looking
    },
    known(upTo) {
      confirmed = Math.max(confirmed, upTo)
    },
  }
}
