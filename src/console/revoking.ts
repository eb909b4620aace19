import { Hono } from 'hono'
import type { Context, MiddlewareHandler } from 'hono'
import { BrokerError, type FieldFault } from '../base/errors.ts'
import { isId, type RevocationId } from '../base/ids.ts'
import * as contract from '../http/contract.ts'
import { fieldFaults } from '../http/problem.ts'
import { selected, toRevoke } from '../http/revocations.ts'
import { listRevocations, listStops } from '../ledger/lists.ts'
import { planRevocation, resumeIssuing, revokeMany, showRevocation } from '../tasks/revoke.ts'
import { type Broker, operatorsOnly } from '../tasks/task.ts'
import type { Html } from './page.ts'
import { type Question, questionOf } from './question.ts'
import { show } from './refusal.ts'
import { renderRevocation, revocationRegions } from './revocation.ts'
import { type InForce, type Proposal, renderRevoke, selectorFields } from './revoke.ts'
import { type ConsoleEnv, forOperators, isOperator } from './visit.ts'

/** Rows of each list. */
const most = { stops: 50, revocations: 10 }

/**
 * Ending many at once, in two steps: an address that says what would end, which changes nothing, and a form that does it.
 *
 * @param stream answers with regions of a page, again and again
 */
export function revokingRoutes(
  broker: Broker,
  ownForm: MiddlewareHandler<ConsoleEnv>,
  stream: (c: Context<ConsoleEnv>, regions: () => Promise<Record<string, Html>>) => Response,
): Hono<ConsoleEnv> {
  async function inForce(): Promise<InForce> {
    const [stops, revocations] = await Promise.all([
      listStops(broker.ledger, true, { limit: most.stops }),
      listRevocations(broker.ledger, undefined, { limit: most.revocations }),
    ])
    return { stops: stops.items, revocations: revocations.items }
  }

  const page = async (c: Context<ConsoleEnv>, proposal: Proposal): Promise<Response> =>
    show(c, { title: 'Revoke', at: 'revoke', body: renderRevoke(c.var.visit, proposal, await inForce()) }, proposal.faults.length > 0 ? 400 : 200)

  async function proposalOf(asked: Question, given: Question = {}, faults: readonly FieldFault[] = []): Promise<Proposal> {
    if (Object.keys(asked).length === 0) return { asked, planned: undefined, faults, given }
    const { data, error } = contract.Selector.safeParse(inWords(asked))
    if (!data) return { asked, planned: undefined, faults: faults.length > 0 ? faults : fieldFaults(error, 'query'), given }
    const selector = selected(data)
    return { asked, planned: { selector, plan: await planRevocation(broker, selector) }, faults, given }
  }

  return new Hono<ConsoleEnv>()
    .get('/revoke', async (c) => {
      const asked = questionOf(c.req.query())
      // Not kept: an address may come from anybody, and would accuse whoever opens it.
      if (Object.keys(asked).length > 0 && !isOperator(c)) throw operatorsOnly()
      return await page(c, await proposalOf(asked))
    })
    .post('/revoke', ownForm, forOperators('POST /revocations'), async (c) => {
      const { asked, given } = formOf(c.var.form)
      const { data, error } = contract.RevocationRequest.safeParse({ selector: inWords(asked), ...given })
      if (!data) return await page(c, await proposalOf(asked, given, fieldFaults(error, 'json').map(ofTheForm)))
      try {
        const { revocation } = await revokeMany(broker, c.var.caller, toRevoke(data))
        return c.redirect(`${c.var.visit.home}/revocations/${revocation.id}`, 303)
      } catch (failure) {
        // Mistyped: nothing that was written is lost.
        if (!(failure instanceof BrokerError) || failure.code !== 'invalid_request') throw failure
        return await page(c, await proposalOf(asked, given, failure.errors))
      }
    })
    .get('/revocations/:id', async (c) => {
      const progress = await showRevocation(broker, revocationIn(c))
      const live = `/revocations/${progress.revocation.id}/live`
      return await show(c, { title: 'Revocation', at: 'revoke', live, body: renderRevocation(c.var.visit, progress) })
    })
    .get('/revocations/:id/live', async (c) => {
      const id = revocationIn(c)
      // Before the stream begins: one that is not there is a 404, and not a stream that ends.
      await showRevocation(broker, id)
      return stream(c, async () => revocationRegions(await showRevocation(broker, id)))
    })
    .post('/stops/:id/lift', ownForm, forOperators('POST /stops/{id}/lift'), async (c) => {
      const id = c.req.param('id')
      if (!isId('stop', id)) throw new BrokerError('not_found', 'There is no such stop')
      const { data, error } = contract.LiftRequest.safeParse({ reason: (c.var.form.get('reason') ?? '').trim() })
      if (!data) throw new BrokerError('invalid_request', 'A stop is lifted with a reason', { errors: fieldFaults(error, 'json') })
      await resumeIssuing(broker, c.var.caller, id, data.reason)
      return c.redirect(`${c.var.visit.home}/revoke`, 303)
    })
}

function revocationIn(c: Context<ConsoleEnv>): RevocationId {
  const id = c.req.param('id') ?? ''
  if (!isId('rev', id)) throw new BrokerError('not_found', 'There is no such revocation')
  return id
}

/** A selector as a request has it. */
const inWords = ({ everything, ...named }: Question): object => ({
  ...named,
  ...(everything !== undefined && { everything: everything === 'true' || everything }),
})

/** What was chosen, and what was written besides; the rest of a form is none of ours. */
function formOf(form: URLSearchParams): { asked: Question; given: Question } {
  const fields = questionOf(Object.fromEntries([...form].map(([name, value]) => [name, value.trim()])))
  const only = (names: readonly string[]): Question => Object.fromEntries(Object.entries(fields).filter(([name]) => names.includes(name)))
  return { asked: only([...selectorFields.map(({ name }) => name), 'everything']), given: only(['reason', 'confirm', 'stop_issuing']) }
}

const ofTheForm = ({ pointer, message }: FieldFault): FieldFault => ({ pointer: pointer.replace(/^\/selector(?=\/)/, ''), message })
