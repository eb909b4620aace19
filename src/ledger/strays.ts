import { stopwatch } from '../base/time.ts'
import type { Telemetry } from '../telemetry.ts'
import { createAlarm } from './alarm.ts'
import type { Ledger } from './connect.ts'
import { beginning, seekStrays } from './look.ts'

/** Strays that are remembered at most: as the log goes on they are behind where it looks, and are no less there. */
const mostStrays = 1_000

/**
 * Entries of the history that are gone through each second for strays that this broker was not there to see, or that have an older id: 7 ms of the store's
 * time, and a million in a quarter of an hour.
 */
const seekBatch = 1_000

/** Milliseconds between two batches of a round. */
const betweenBatches = 1_000

/** Milliseconds between two rounds through the history: a short one is not read again and again while nothing happens. */
const betweenRounds = 60_000

/** Looks out for entries that were written where the log had been already: no broker does that, and they never get a place. */
export interface StrayWatch {
  hasAny(): boolean
  /** Takes those that were met elsewhere. @param found their ids */
  remember(found: readonly string[]): void
  /** Goes through the next of the history, where it is time for that. @throws BrokerError `store_unavailable`; the next call begins where this one did */
  seek(): Promise<void>
}

export function createStrayWatch(ledger: Ledger, { log, metrics }: Telemetry): StrayWatch {
  const strays = new Set<string>()
  /** One of its own: what else is wrong with the log must not hide it. */
  const alarm = createAlarm((fields, message) => log.error(fields, message))
  const running = stopwatch()
  let sought = beginning
  let seekAt = 0

  function remember(found: readonly string[]): void {
    for (const stray of found) if (strays.size < mostStrays) strays.add(stray)
    metrics.logStrays.set(strays.size)
    if (strays.size > 0)
      alarm(
        { entries: [...strays].slice(0, 10), count: strays.size },
        'entries were written where the log had been already, and never get a place: no broker does that',
      )
  }

  return {
    hasAny: () => strays.size > 0,
    remember,
    async seek() {
      if (running() < seekAt) return
      const { strays: found, reached } = await seekStrays(ledger, sought, seekBatch)
      remember(found)
      sought = reached ?? beginning
      seekAt = running() + (reached ? betweenBatches : betweenRounds)
    },
  }
}
