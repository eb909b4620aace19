import type { Context } from 'hono'

/** Seconds. The longest stays well below the time that ends are given. */
const usual = 5
const longest = 30

/**
 * How long the caller wants to wait for the ends, `Prefer: wait=N` (RFC 7240); says in the answer what was taken of it. A preference that is
 * not understood is no fault, it is ignored, as the RFC demands.
 */
export function waitSeconds(c: Context): number {
  const [, asked] = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})"?\s*(?:$|[,;])/i.exec(c.req.header('prefer') ?? '') ?? []
  if (asked === undefined) return usual
  const seconds = Math.min(Number(asked), longest)
  c.header('preference-applied', `wait=${seconds}`)
  return seconds
}
