import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { parseDuration } from '../base/time.ts'
import { listRevocations, listStops } from '../ledger/lists.ts'
import type { Selector } from '../ledger/selector.ts'
import type { ChangedStop } from '../ledger/stops.ts'
import { type AskedRevocation, planRevocation, resumeIssuing, revokeMany, showRevocation, stopIssuing, unknownIn } from '../tasks/revoke.ts'
import type { Broker } from '../tasks/task.ts'
import { body, conflicts, json, problems } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy, readers } from './callable.ts'
import * as contract from './contract.ts'
import { pageOf } from './paging.ts'
import { viewReceipts, viewRevocation, viewStop } from './views.ts'

/** Ending many at once, and keeping the same from being issued. */
export function revocationRoutes(broker: Broker) {
  return new OpenAPIHono<Env>()
    .openapi(revoke, async (c) => {
      const asked = c.req.valid('json')
      if (asked.dry_run === true) {
        const { reach, unknown, ...plan } = await planRevocation(broker, selected(asked.selector))
        const { tasks, leases, endingAlready: ending_already } = reach
        return c.json({ dry_run: true as const, tasks, leases: [...leases], ending_already, ...plan, ...whereSome(unknown) }, 200)
      }
      const { revocation, stop: put, receipts } = await revokeMany(broker, c.var.caller, toRevoke(asked))
      return c.json({ ...viewRevocation(revocation), ...(put && { stop: put }), receipts: viewReceipts(receipts) }, 202)
    })
    .openapi(list, async (c) => {
      const { ended, ...page } = c.req.valid('query')
      const found = await listRevocations(broker.ledger, ended === undefined ? undefined : ended === 'true', pageOf(page))
      return c.json({ items: found.items.map(viewRevocation), next: found.next }, 200)
    })
    .openapi(show, async (c) => {
      const { revocation, tasks, leases, stuck, endingAlready: ending_already } = await showRevocation(broker, c.req.valid('param').id)
      return c.json({ ...viewRevocation(revocation), tasks, leases, stuck, ending_already }, 200)
    })
    .openapi(stop, async (c) => {
      const { selector, reason, duration } = c.req.valid('json')
      const asked = { selector: selected(selector), reason, lasts: parseDuration(duration)! }
      const put = await stopIssuing(broker, c.var.caller, asked)
      return c.json({ ...viewChangedStop(put), ...whereSome(unknownIn(broker, asked.selector)) }, 201)
    })
    .openapi(stops, async (c) => {
      const { in_force: inForce, ...page } = c.req.valid('query')
      const found = await listStops(broker.ledger, inForce === undefined ? undefined : inForce === 'true', pageOf(page))
      return c.json({ items: found.items.map(viewStop), next: found.next }, 200)
    })
    .openapi(lift, async (c) => {
      const lifted = await resumeIssuing(broker, c.var.caller, c.req.valid('param').id, c.req.valid('json').reason)
      return c.json(viewChangedStop(lifted), 200)
    })
}

/** Everything is what a selector means that names nothing. */
export const selected = ({ everything: _everything, ...named }: contract.Selector): Selector => named

/** What is to be ended, of a request that is no dry run: the contract wants a reason and a confirmation of every other. */
export const toRevoke = ({ selector, reason, confirm, stop_issuing: stop }: contract.RevocationRequest): AskedRevocation => ({
  selector: selected(selector),
  reason: reason!,
  confirm: confirm!,
  stopFor: stop === undefined ? undefined : parseDuration(stop),
})

const whereSome = (unknown: readonly string[]) => (unknown.length > 0 ? { unknown: [...unknown] } : {})

const viewChangedStop = ({ receipts, ...stop }: ChangedStop): contract.ChangedStop => ({ ...viewStop(stop), receipts: viewReceipts(receipts) })

const revoke = createRoute({
  method: 'post',
  path: '/revocations',
  summary: 'End many tasks or leases at once, as an operator; a dry run first says how many',
  ...callableBy(['operator']),
  request: body(contract.RevocationRequest),
  responses: {
    200: json('The dry run: nothing was changed', contract.RevocationPlan),
    202: json('Started. It goes on by itself until the last is dead: `GET /revocations/{id}`', contract.StartedRevocation),
    ...problems,
    ...conflicts,
  },
})

const list = createRoute({
  method: 'get',
  path: '/revocations',
  summary: 'Revocations of many, newest first',
  ...callableBy(readers),
  request: { query: contract.RevocationFilter },
  responses: { 200: json('A page', contract.RevocationPage), ...problems },
})

const show = createRoute({
  method: 'get',
  path: '/revocations/{id}',
  summary: 'How far a revocation is',
  ...callableBy(readers),
  request: { params: contract.RevocationPath },
  responses: { 200: json('With counts by state', contract.RevocationView), ...problems },
})

const stop = createRoute({
  method: 'post',
  path: '/stops',
  summary: 'Stop issuing what a selector means, on every broker at once, until it is lifted or its time is over; what lives goes on',
  ...callableBy(['operator']),
  request: body(contract.StopRequest),
  responses: { 201: json('In force: nothing of it is issued from now on', contract.ChangedStop), ...problems },
})

const stops = createRoute({
  method: 'get',
  path: '/stops',
  summary: 'Stops, newest first',
  ...callableBy(readers),
  request: { query: contract.StopFilter },
  responses: { 200: json('A page', contract.StopPage), ...problems },
})

const lift = createRoute({
  method: 'post',
  path: '/stops/{id}/lift',
  summary: 'Let what was stopped be issued again',
  ...callableBy(['operator']),
  request: { params: contract.StopPath, ...body(contract.LiftRequest) },
  responses: { 200: json('Lifted', contract.ChangedStop), ...problems },
})
