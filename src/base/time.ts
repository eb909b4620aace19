import { setTimeout as wait } from 'node:timers/promises'

/** Milliseconds since 1970, UTC. Passed in wherever it is read, so that a test can drive it. */
export type Clock = () => number

/** The machine's clock: the only place that reads it. Time that decides about leases and tasks is the database's, not this one. */
export const systemClock: Clock = () => Date.now()

/**
 * Milliseconds since a moment of this clock. Never negative: otherwise, after a clock that ran ahead is set back, an entry would look
 * fresh until the clock catches up.
 */
export const ageOf = (moment: number, clock: Clock): number => Math.abs(clock() - moment)

/** Milliseconds that only grow, for measuring how long something took. */
export const stopwatch = (): (() => number) => {
  const started = performance.now()
  return () => performance.now() - started
}

const unit = { s: 1_000, m: 60_000, h: 3_600_000 } as const

/** What a duration looks like on the wire: `"90s"`, `"15m"`, `"2h"`. At most five digits, so that it never overflows a timer. */
export const durationPattern = /^([1-9]\d{0,4})([smh])$/

/** Milliseconds of a duration such as `"90s"`, `"15m"`, `"2h"`; undefined for anything else, zero and signs included. */
export function parseDuration(text: string): number | undefined {
  const [, count, letter] = durationPattern.exec(text) ?? []
  if (count === undefined) return undefined
  return Number(count) * unit[letter as keyof typeof unit]
}

/** The shortest exact form of a duration, `"15m"` rather than `"900s"`. Fractions of a second are dropped. @param ms milliseconds */
export function formatDuration(ms: number): string {
  if (ms >= unit.h && ms % unit.h === 0) return `${ms / unit.h}h`
  if (ms >= unit.m && ms % unit.m === 0) return `${ms / unit.m}m`
  return `${Math.floor(ms / unit.s)}s`
}

/** Waits, or rejects with the signal's reason. @param ms milliseconds */
export async function delay(ms: number, signal?: AbortSignal): Promise<void> {
  await wait(ms, undefined, signal ? { signal } : {})
}

/** The earlier of two moments, as it was written; the second if the first is no valid moment. */
export const earlier = (one: string, other: string): string => (Date.parse(one) < Date.parse(other) ? one : other)
