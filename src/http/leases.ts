import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { revokeLease } from '../tasks/close.ts'
import { refreshLease } from '../tasks/refresh.ts'
import { showLease } from '../tasks/show.ts'
import type { Broker } from '../tasks/task.ts'
import { conflicts, json, optionalBody, problems, refusals } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy, readers } from './callable.ts'
import * as contract from './contract.ts'
import { waitedFor } from './prefer.ts'
import { askForLeases } from './questions.ts'
import { revealLease } from './reveal.ts'
import { viewDecision, viewLease, viewReceipts } from './views.ts'

/** Single leases: found, refreshed, ended. */
export function leaseRoutes(broker: Broker) {
  return new OpenAPIHono<Env>()
    .openapi(list, async (c) => {
      const found = await askForLeases(broker.ledger, c.req.valid('query'))
      return c.json({ items: found.items.map((lease) => viewLease(lease, c.var.caller)), next: found.next }, 200)
    })
    .openapi(show, async (c) => c.json(viewLease(await showLease(broker, c.var.caller, c.req.valid('param').id), c.var.caller), 200))
    .openapi(refresh, async (c) => {
      const { decision, lease, receipts } = await refreshLease(broker, c.var.caller, c.req.valid('param').id, c.var.signal)
      return c.json({ decision: viewDecision(decision), lease: revealLease(lease, c.var.caller), receipts: viewReceipts(receipts) }, 200)
    })
    .openapi(revoke, async (c) => {
      const [{ id }, { reason }] = [c.req.valid('param'), c.req.valid('json')]
      const { lease, ended, receipts } = await waitedFor(c, (wait, signal) => revokeLease(broker, c.var.caller, id, reason, wait, signal))
      const answer = { lease: viewLease(lease, c.var.caller), ended, receipts: viewReceipts(receipts) }
      return ended ? c.json(answer, 200) : c.json(answer, 202)
    })
}

const list = createRoute({
  method: 'get',
  path: '/leases',
  summary: 'Leases, newest first',
  ...callableBy(readers),
  request: { query: contract.LeaseFilter },
  responses: { 200: json('A page', contract.LeasePage), ...problems },
})

const show = createRoute({
  method: 'get',
  path: '/leases/{id}',
  summary: 'One lease',
  ...callableBy(['agent', 'task', ...readers]),
  request: { params: contract.LeasePath },
  responses: { 200: json('The lease, without its credential', contract.LeaseView), ...problems },
})

const refresh = createRoute({
  method: 'post',
  path: '/leases/{id}/refresh',
  summary: 'Ask for a fresh short-lived credential of an active lease, where its provider has them',
  ...callableBy(['agent', 'task'], 'issue'),
  request: { params: contract.LeasePath, ...optionalBody(contract.Nothing) },
  responses: { 200: json('Issued under a fresh decision', contract.AddedLease), ...problems, ...refusals },
})

const revoke = createRoute({
  method: 'post',
  path: '/leases/{id}/revoke',
  summary: 'End one lease; the task goes on',
  ...callableBy(['agent', 'task', 'operator'], 'ends'),
  request: { params: contract.LeasePath, headers: contract.Preference, ...optionalBody(contract.LeaseRevocation) },
  responses: {
    200: json('The lease is ended', contract.ClosedLease),
    202: json('The lease is still being ended', contract.ClosedLease),
    ...problems,
    ...conflicts,
  },
})
