import { z } from 'zod'
import { formatDuration, parseDuration } from './time.ts'

/** Text such as `"90s"` in a file of ours, within limits in milliseconds, both inclusive; milliseconds once parsed. */
export function durationWithin(shortest: number, longest: number) {
  const message = `must be a duration from "${formatDuration(shortest)}" to "${formatDuration(longest)}"`
  return z.string(message).transform((text, context) => {
    const milliseconds = parseDuration(text)
    if (milliseconds !== undefined && milliseconds >= shortest && milliseconds <= longest) return milliseconds
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })
}
