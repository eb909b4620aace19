import { stopwatch } from '../base/time.ts'

/** Milliseconds between two alarms about the same. */
const repeatAfter = 60_000

/** Says something to operators. */
export type Alarm = (fields: object, message: string) => void

/** Says what it is told, but the same only once in a while. */
export function createAlarm(say: Alarm): Alarm {
  let last: string | undefined
  let since = stopwatch()
  return (fields, message) => {
    if (message === last && since() < repeatAfter) return
    last = message
    since = stopwatch()
    say(fields, message)
  }
}
