import type { Json } from '../base/json.ts'

/** Milliseconds since 1970; NaN, which is later and earlier than nothing, for what is no moment. */
export const momentOf = (value: Json | undefined): number => (typeof value === 'string' ? Date.parse(value) : Number.NaN)

/** The same where there must be one: a story without times would break no promise. @returns `otherwise` for what is none, which is told */
export function momentIn(value: Json | undefined, say: (message: string) => void, otherwise = Infinity): number {
  const moment = momentOf(value)
  if (!Number.isNaN(moment)) return moment
  say('is told with a time that is missing, or none')
  return otherwise
}
