import { z } from 'zod'
import { formatDuration, parseDuration } from '../base/time.ts'

/** A duration such as `"90s"` within limits, both inclusive; milliseconds once parsed. */
export const durationWithin = (shortest: number, longest: number) =>
  z.string().transform((text, context) => {
    const milliseconds = parseDuration(text)
    if (milliseconds !== undefined && milliseconds >= shortest && milliseconds <= longest) return milliseconds
    context.addIssue({ code: 'custom', message: `must be a duration from "${formatDuration(shortest)}" to "${formatDuration(longest)}"` })
    return z.NEVER
  })

/** A path in the configuration; made absolute by whoever read the file it stands in. */
export const path = z.string().min(1).max(4_096)
