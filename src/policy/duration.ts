import { z } from 'zod'
import { parseDuration } from '../base/time.ts'

const wanted = 'must be a duration such as "90s", "15m" or "2h"'

/** Text such as `15m` in a file of ours, read as milliseconds. */
export const Duration = z.string(wanted).transform((text, context) => {
  const duration = parseDuration(text)
  if (duration === undefined) context.addIssue({ code: 'custom', message: wanted })
  return duration ?? z.NEVER
})
