import type { Context } from 'hono'
import type { Env } from './app.ts'
import { sharerOf } from './gate.ts'

/** Seconds. The longest stays well below the time that ends are given. */
const usual = 5
const longest = 30

/**
 * How long the caller wants to wait for the ends, `Prefer: wait=N` (RFC 7240); says in the answer what was taken of it. A preference that is
 * not understood is no fault, it is ignored, as the RFC demands.
 *
 * @param most seconds
 */
export function waitSeconds(c: Context, most = longest): number {
  const [, asked] = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})"?\s*(?:$|[,;])/i.exec(c.req.header('prefer') ?? '') ?? []
  if (asked === undefined) return Math.min(usual, most)
  const seconds = Math.min(Number(asked), most)
  c.header('preference-applied', `wait=${seconds}`)
  return seconds
}

/**
 * Ends something, and waits as long as the caller wants and there is a place to wait in. Without one nobody is refused: the end is begun all the same, and
 * the answer says what it has come to so far. A client that hangs up is not waited for any more; what it ended goes on.
 *
 * @param end is told how many seconds it may wait, and by a signal when that is over before
 */
export async function waitedFor<Ended>(c: Context<Env>, end: (seconds: number, signal: AbortSignal) => Promise<Ended>): Promise<Ended> {
  const leave = c.var.waits.offer(sharerOf(c.var.caller))
  try {
    return await end(waitSeconds(c, leave ? longest : 0), AbortSignal.any([c.var.signal, c.req.raw.signal]))
  } finally {
    leave?.()
  }
}
