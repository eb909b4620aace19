import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { BrokerError } from '../base/errors.ts'
import type { Env } from './app.ts'
import { hasBody, readBody } from './body.ts'
import type { Callers, Rates } from './gate.ts'

/** Those who may look at everything. */
export const readers = ['operator', 'reviewer'] as const satisfies readonly Callers[]

/**
 * Spread into a route: who may call it, in force and in the document at once. The body is read behind this, so that strangers get a 401 before
 * anything of theirs is parsed.
 *
 * @param limited by a rate, or `ends` where it is by a share of what is under way
 */
export function callableBy(callers: readonly Callers[], limited?: keyof Rates | 'ends') {
  // What somebody tries who may not end the work of others is a matter for the ledger.
  const operatorsAlone = callers.length === 1 && callers[0] === 'operator'
  const authenticate: MiddlewareHandler<Env> = async (c, next) => {
    const { gate, signal } = c.var
    const caller = await gate.identify(c.req.header('authorization'), signal)
    c.set('caller', caller)
    try {
      gate.admit(caller, callers)
    } catch (error) {
      if (!operatorsAlone || !(error instanceof BrokerError)) throw error
      const call = `${c.req.method} ${routePath(c, -1).replaceAll(/:(\w+)/g, '{$1}')}`
      throw error.telling(await gate.keepRefusal(caller, call, c.req.param('id')))
    }
    if (limited !== 'ends') {
      if (limited) gate.limit(limited, caller)
      return await next()
    }
    const leave = gate.begin('ends', caller)
    try {
      await next()
    } finally {
      leave()
    }
  }
  // Ends have their share until they are made, and operators are not kept from what they alone may do.
  const isShared = limited !== 'ends' && !operatorsAlone
  const room = limited === 'introspect' ? 'introspection' : 'work'
  const takeBody: MiddlewareHandler<Env> = async (c, next) => {
    if (hasBody(c)) {
      const arrived = isShared ? c.var.gate.begin(room, c.var.caller) : () => {}
      await readBody(c).finally(arrived)
    }
    await next()
  }
  const schemes = callers.some((one) => one !== 'task') ? [{ workload_token: [] }] : []
  return {
    middleware: [authenticate, takeBody] as [typeof authenticate, typeof takeBody],
    security: callers.includes('task') ? [...schemes, { task_token: [] }] : schemes,
    'x-callers': callers,
  }
}
