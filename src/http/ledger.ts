import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { accepts } from 'hono/accepts'
import { BrokerError } from '../base/errors.ts'
import { showDecision } from '../ledger/lists.ts'
import { policySetOf } from '../ledger/policy-sets.ts'
import { replayDecision } from '../tasks/replay.ts'
import type { Broker } from '../tasks/task.ts'
import { json, problems } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy, readers } from './callable.ts'
import * as contract from './contract.ts'
import { asCsv, asLines } from './export.ts'
import { askForDenials, askForEntries } from './questions.ts'
import { viewDecisionDetail, viewDenial, viewEntry, viewJudgement } from './views.ts'

/** What reviewers read: the history, the decisions with all they rested on, and the policy sets that made them. */
export function ledgerRoutes(broker: Broker) {
  return new OpenAPIHono<Env>()
    .openapi(list, async (c) => {
      const found = await askForEntries(broker.ledger, c.req.valid('query'))
      const items = found.items.map(viewEntry)
      const form = accepts(c, { header: 'Accept', supports: [...forms], default: forms[0] })
      if (form === forms[0]) return c.json({ items, next: found.next }, 200)
      if (found.next !== null) c.header('link', `<${following(c, found.next)}>; rel="next"`)
      return form === forms[1] ? c.body(asLines(items), 200, { 'content-type': form }) : c.body(asCsv(items), 200, csvHeaders)
    })
    .openapi(denials, async (c) => {
      const found = await askForDenials(broker.ledger, c.req.valid('query'))
      return c.json({ items: found.items.map(viewDenial), next: found.next }, 200)
    })
    .openapi(decision, async (c) => {
      const found = await showDecision(broker.ledger, c.req.valid('param').id)
      if (!found) throw new BrokerError('not_found', 'There is no such decision')
      return c.json(viewDecisionDetail(found), 200)
    })
    .openapi(replay, async (c) => {
      const replayed = await replayDecision(broker, c.req.valid('param').id)
      const answer: contract.ReplayView = {
        decision: viewDecisionDetail(replayed.decision),
        archived: viewJudgement(replayed.decision.policyDigest, replayed.archived),
        current: viewJudgement(replayed.current.digest, replayed.current),
      }
      return c.json(answer, 200)
    })
    .openapi(policies, async (c) => {
      const { digest } = c.req.valid('param')
      const document = await policySetOf(broker.ledger, digest)
      if (document === undefined) throw new BrokerError('not_found', 'No policy set with this digest was ever active here')
      return c.json({ digest, document }, 200)
    })
}

const forms = ['application/json', 'application/x-ndjson', 'text/csv'] as const

/** As a download: a browser that shows it in place would guess at its type. */
const csvHeaders = { 'content-type': 'text/csv; charset=utf-8; header=present', 'content-disposition': 'attachment; filename="ledger.csv"' }

/** The same question about the following page, relative to this one, so that no proxy's idea of the host or of the path gets in. */
function following(c: Context, cursor: string): string {
  const query = new URLSearchParams(new URL(c.req.url).search)
  query.set('cursor', cursor)
  return `?${query.toString()}`
}

const list = createRoute({
  method: 'get',
  path: '/ledger',
  summary: 'Entries of the ledger, newest first; as JSON, as one JSON text a line, or as CSV',
  description:
    'With `follow=true` and no filter it is no page but a stream, oldest first, behind the entry with the number `after`; NDJSON or server-sent events. `format=ocsf` makes events of OCSF of it',
  ...callableBy(readers),
  // Beside the filters of a page and not among them: neither goes with the other.
  parameters: [...contract.followParameters],
  request: { query: contract.EntryFilter },
  responses: {
    200: {
      description: 'A page. The two forms without room for `next` carry it in `Link: <…>; rel="next"`',
      content: {
        'application/json': { schema: contract.EntryPage },
        'application/x-ndjson': { schema: contract.EntryView },
        'text/csv': { schema: contract.LedgerCsv },
        'text/event-stream': { schema: contract.LedgerEvents },
      },
    },
    ...problems,
  },
})

const denials = createRoute({
  method: 'get',
  path: '/denials',
  summary: 'Decisions that said no, newest first',
  ...callableBy(readers),
  request: { query: contract.DenialFilter },
  responses: { 200: json('A page', contract.DenialPage), ...problems },
})

const decision = createRoute({
  method: 'get',
  path: '/decisions/{id}',
  summary: 'A decision with every answer and its whole input',
  ...callableBy(readers),
  request: { params: contract.DecisionPath },
  responses: { 200: json('The decision', contract.DecisionDetail), ...problems },
})

const replay = createRoute({
  method: 'get',
  path: '/decisions/{id}/replay',
  summary: "Decide again, on the archived policy set and on today's",
  ...callableBy(readers, 'replay'),
  request: { params: contract.DecisionPath },
  responses: { 200: json('What both say now', contract.ReplayView), ...problems },
})

const policies = createRoute({
  method: 'get',
  path: '/policies/{digest}',
  summary: 'A policy set that was active once',
  ...callableBy(readers),
  request: { params: contract.PolicyPath },
  responses: { 200: json('The set as archived', contract.PolicySetView), ...problems },
})
