import { Hono } from 'hono'
import type { Context, MiddlewareHandler } from 'hono'
import { BrokerError } from '../base/errors.ts'
import { isId, type TaskId } from '../base/ids.ts'
import { subjectOf } from '../http/gate.ts'
import { findLease } from '../ledger/records.ts'
import type { Sequencer } from '../ledger/sequencer.ts'
import { revokeTask } from '../tasks/close.ts'
import type { Broker } from '../tasks/task.ts'
import { readGround, renderDecision } from './decision.ts'
import { ledgerRoutes } from './ledger.ts'
import type { Live } from './live.ts'
import { createLookout, nowRegions, renderNow } from './now.ts'
import type { Html } from './page.ts'
import { show } from './refusal.ts'
import { revokingRoutes } from './revoking.ts'
import { readStory, renderTask, taskRegions } from './task.ts'
import { signedIn } from './threshold.ts'
import { type ConsoleEnv, forOperators } from './visit.ts'

/** The pages, each behind a session. */
export function pageRoutes(
  broker: Broker,
  ownForm: MiddlewareHandler<ConsoleEnv>,
  sequencer: Pick<Sequencer, 'refusal'>,
  live: Live,
): Hono<ConsoleEnv> {
  const look = createLookout(broker)

  /** Whatever fails before the first event is an answer by itself; afterwards the client connects again and finds out. */
  function stream(c: Context<ConsoleEnv>, regions: () => Promise<Record<string, Html>>): Response {
    const body = live.open(regions, c.var.visit.session!.expiresAt, subjectOf(c.var.caller))
    return c.body(body, 200, { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
  }

  return new Hono<ConsoleEnv>()
    .use('*', signedIn)
    .route('/', ledgerRoutes(broker, sequencer))
    .route('/', revokingRoutes(broker, ownForm, stream))
    .get('/', async (c) => {
      const { home, now } = c.var.visit
      return await show(c, { title: 'Now', at: 'now', live: '/live', body: renderNow(home, await look(), now) })
    })
    .get('/live', (c) => stream(c, async () => nowRegions(c.var.visit.home, await look())))
    .get('/tasks/:id', async (c) => {
      const story = await readStory(broker, c.var.caller, taskIn(c))
      const ended = story.leases.length > 0 || story.task.state !== 'denied'
      const path = `/tasks/${story.task.id}/live`
      return await show(c, { title: `${story.task.kind} of ${story.task.agent}`, ...(ended && { live: path }), body: renderTask(c.var.visit, story) })
    })
    .get('/tasks/:id/live', async (c) => {
      const id = taskIn(c)
      // Before the stream begins: a task that is not there is a 404, and not a stream that ends.
      await readStory(broker, c.var.caller, id)
      return stream(c, async () => taskRegions(c.var.visit.home, await readStory(broker, c.var.caller, id)))
    })
    .post('/tasks/:id/revoke', ownForm, forOperators('POST /tasks/{id}/revoke'), async (c) => {
      const id = taskIn(c)
      // Not waited for: the page shows each lease die.
      await revokeTask(broker, c.var.caller, id, reasonIn(c.var.form), 0, c.var.signal)
      return c.redirect(`${c.var.visit.home}/tasks/${id}`, 303)
    })
    .get('/decisions/:id', async (c) => {
      const id = c.req.param('id')
      if (!isId('dec', id)) throw new BrokerError('not_found', 'There is no such decision')
      c.var.gate.limit('replay', c.var.caller)
      return await show(c, { title: 'Decision', body: renderDecision(c.var.visit.home, await readGround(broker, id)) })
    })
    .get('/find', async (c) => c.redirect(c.var.visit.home + (await placeOf(broker, (c.req.query('id') ?? '').trim())), 303))
}

function taskIn(c: Context<ConsoleEnv>): TaskId {
  const id = c.req.param('id') ?? ''
  if (!isId('task', id)) throw new BrokerError('not_found', 'There is no such task')
  return id
}

/** Neither control characters, which garble a terminal that shows the ledger, nor halves of a surrogate pair, which the store cannot keep. */
const unprintable = /[\p{Cc}\p{Cs}]/u

function reasonIn(form: URLSearchParams): string {
  const reason = (form.get('reason') ?? '').trim()
  if (reason !== '' && reason.length <= 500 && !unprintable.test(reason)) return reason
  throw new BrokerError('invalid_request', 'A task is ended with a reason', {
    errors: [{ pointer: '/reason', message: 'must have 1 to 500 characters, in one line' }],
  })
}

/** Where something with this id is shown. */
async function placeOf(broker: Broker, id: string): Promise<string> {
  if (isId('task', id)) return `/tasks/${id}`
  if (isId('dec', id)) return `/decisions/${id}`
  if (isId('ent', id)) return `/entries/${id}`
  if (isId('rev', id)) return `/revocations/${id}`
  const found = isId('lease', id) ? await findLease(broker.ledger, id, 'later') : undefined
  if (found) return `/tasks/${found.task.id}`
  throw new BrokerError('not_found', 'Nothing has this id. Ids begin with task_, lease_, dec_, ent_ or rev_')
}
