import { z } from 'zod'
import { formatDuration, parseDuration } from './time.ts'

/** Text such as `"90s"` in one of our files, within limits in milliseconds, both inclusive. It is parsed to milliseconds. */
export function durationWithin(shortest: number, longest: number) {
  const message = `must be a duration from "${formatDuration(shortest)}" to "${formatDuration(longest)}"`
  return z.string(message).transform((text, context) => {
    const milliseconds = parseDuration(text)
    if (milliseconds !== undefined && milliseconds >= shortest && milliseconds <= longest) return milliseconds
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })
}
