import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { completeTask, revokeTask, type TaskEnd } from '../tasks/close.ts'
import { countsOf } from '../tasks/counts.ts'
import { addLease } from '../tasks/lease.ts'
import { openTask } from '../tasks/open.ts'
import { renewTask } from '../tasks/renew.ts'
import { showTask } from '../tasks/show.ts'
import type { Broker, Caller } from '../tasks/task.ts'
import { body, conflicts, json, optionalBody, problems, refusals } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy, readers } from './callable.ts'
import * as contract from './contract.ts'
import { readDeclaration, readGrant, readTiming } from './declaration.ts'
import { waitedFor } from './prefer.ts'
import { askForTasks } from './questions.ts'
import { revealLease } from './reveal.ts'
import { viewDecision, viewLease, viewReceipts, viewTask } from './views.ts'

/** The life of a task, as its agent, operators and reviewers see it. */
export function taskRoutes(broker: Broker) {
  return new OpenAPIHono<Env>()
    .openapi(declare, async (c) => {
      const declared = readDeclaration(c.req.valid('json'), broker.clock())
      const opened = await openTask(broker, c.var.caller, declared, c.req.valid('header')['idempotency-key'], c.var.signal)
      const answer: contract.OpenedTask = {
        task: viewTask(opened.task, c.var.caller),
        task_token: opened.taskToken.open(),
        decision: viewDecision(opened.decision),
        leases: opened.leases.map((one) => revealLease(one, c.var.caller)),
        receipts: viewReceipts(opened.receipts),
      }
      return c.json(answer, 201)
    })
    .openapi(list, async (c) => {
      const found = await askForTasks(broker.ledger, c.req.valid('query'))
      return c.json({ items: found.items.map((task) => viewTask(task, c.var.caller)), next: found.next }, 200)
    })
    .openapi(show, async (c) => {
      const { task, leases, decisions } = await showTask(broker, c.var.caller, c.req.valid('param').id)
      const answer: contract.ShownTask = {
        task: viewTask(task, c.var.caller),
        leases: leases.map((one) => viewLease(one, c.var.caller)),
        decisions: decisions.map(viewDecision),
      }
      return c.json(answer, 200)
    })
    .openapi(lease, async (c) => {
      const added = await addLease(broker, c.var.caller, c.req.valid('param').id, readGrant(c.req.valid('json')), c.var.signal)
      return c.json(
        { decision: viewDecision(added.decision), lease: revealLease(added.lease, c.var.caller), receipts: viewReceipts(added.receipts) },
        201,
      )
    })
    .openapi(renew, async (c) => {
      const asked = readTiming(c.req.valid('json'), broker.clock())
      const { task, decision, leases, receipts } = await renewTask(broker, c.var.caller, c.req.valid('param').id, asked)
      const answer: contract.RenewedTask = {
        task: viewTask(task, c.var.caller),
        decision: viewDecision(decision),
        leases: leases.map((one) => viewLease(one, c.var.caller)),
        receipts: viewReceipts(receipts),
      }
      return c.json(answer, 200)
    })
    .openapi(complete, async (c) => {
      const { id } = c.req.valid('param')
      const closed = await waitedFor(c, (wait, signal) => completeTask(broker, c.var.caller, id, wait, signal))
      return c.json(await viewClosed(broker, closed, c.var.caller), closed.ended ? 200 : 202)
    })
    .openapi(revoke, async (c) => {
      const [{ id }, { reason }] = [c.req.valid('param'), c.req.valid('json')]
      const closed = await waitedFor(c, (wait, signal) => revokeTask(broker, c.var.caller, id, reason, wait, signal))
      return c.json(await viewClosed(broker, closed, c.var.caller), closed.ended ? 200 : 202)
    })
}

const viewClosed = async (broker: Broker, closed: TaskEnd, caller: Caller): Promise<contract.ClosedTask> => ({
  task: viewTask(closed.task, caller),
  leases: closed.leases.map((one) => viewLease(one, caller)),
  counts: await countsOf(broker, closed),
  ended: closed.ended,
  receipts: viewReceipts(closed.receipts),
})

const declare = createRoute({
  method: 'post',
  path: '/tasks',
  summary: 'Declare a task and get its credentials: all grants, or none',
  ...callableBy(['agent'], 'issue'),
  request: { headers: contract.Idempotency, ...body(contract.Declaration) },
  responses: { 201: json('Opened, with credentials that are shown once', contract.OpenedTask), ...problems, ...refusals },
})

const list = createRoute({
  method: 'get',
  path: '/tasks',
  summary: 'Tasks, newest first',
  ...callableBy(readers),
  request: { query: contract.TaskFilter },
  responses: { 200: json('A page', contract.TaskPage), ...problems },
})

const show = createRoute({
  method: 'get',
  path: '/tasks/{id}',
  summary: 'A task with its leases and decisions',
  ...callableBy(['agent', 'task', ...readers]),
  request: { params: contract.TaskPath },
  responses: { 200: json('The task, without any secret', contract.ShownTask), ...problems },
})

const lease = createRoute({
  method: 'post',
  path: '/tasks/{id}/leases',
  summary: 'Ask for a further grant inside the task',
  ...callableBy(['agent', 'task'], 'issue'),
  request: { params: contract.TaskPath, ...body(contract.GrantRequest) },
  responses: { 201: json('Issued under a fresh decision', contract.AddedLease), ...problems, ...refusals },
})

const renew = createRoute({
  method: 'post',
  path: '/tasks/{id}/renew',
  summary: 'Ask for a later deadline, with a live workload token',
  ...callableBy(['agent'], 'issue'),
  request: { params: contract.TaskPath, ...optionalBody(contract.RenewRequest) },
  responses: { 200: json('Renewed under a fresh decision', contract.RenewedTask), ...problems, ...refusals },
})

const complete = createRoute({
  method: 'post',
  path: '/tasks/{id}/complete',
  summary: 'End a task well; idempotent, accepted late',
  ...callableBy(['agent', 'task'], 'ends'),
  request: { params: contract.TaskPath, headers: contract.Preference, ...optionalBody(contract.Nothing) },
  responses: {
    200: json('Every lease is ended', contract.ClosedTask),
    202: json('Some leases are still being ended', contract.ClosedTask),
    ...problems,
    ...conflicts,
  },
})

const revoke = createRoute({
  method: 'post',
  path: '/tasks/{id}/revoke',
  summary: 'End a task early, as an operator',
  ...callableBy(['operator']),
  request: { params: contract.TaskPath, headers: contract.Preference, ...body(contract.TaskRevocation) },
  responses: {
    200: json('Every lease is ended', contract.ClosedTask),
    202: json('Some leases are still being ended', contract.ClosedTask),
    ...problems,
    ...conflicts,
  },
})
