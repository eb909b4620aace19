import { type Context, Hono } from 'hono'
import { html, raw } from 'hono/html'
import { BrokerError, requestRefused } from '../base/errors.ts'
import { isId } from '../base/ids.ts'
import { subjectOf } from '../http/gate.ts'
import * as contract from '../http/contract.ts'
import { placeless } from '../ledger/proofs.ts'
import type { Sequencer } from '../ledger/sequencer.ts'
import { proofText } from '../proof/entry-proof.ts'
import type { Broker } from '../tasks/task.ts'
import { type Proven, readProven, renderEntry } from './entry.ts'
import { createExports, forms } from './export.ts'
import { type Answered, denials, entries, leases, type LedgerView, operatorDeeds, tasks } from './ledger-views.ts'
import { type LogStatus, readLogStatus, renderLogStatus } from './log-status.ts'
import type { Html } from './page.ts'
import { addressOf, type Question, questionOf, readQuestion, renderFaults, renderFilters } from './question.ts'
import { show } from './refusal.ts'
import type { ConsoleEnv } from './visit.ts'

/** A page of the ledger: what can be asked there. */
interface LedgerPage extends LedgerView {
  /** Below the console's. */
  readonly path: string
}

/** Each takes the query of the list of the API that has its name: `/ledger/leases?…` asks what `GET /leases?…` does. */
const ledgerPages: readonly LedgerPage[] = [
  { path: '/ledger', ...entries },
  { path: '/ledger/leases', ...leases },
  { path: '/ledger/tasks', ...tasks },
  { path: '/ledger/denials', ...denials },
  { path: '/ledger/operators', ...operatorDeeds },
]

/** What reviewers ask again and again, and what the answer means. */
const usual: readonly { readonly name: string; readonly path: string; readonly asks: Question; readonly meaning: string }[] = [
  { name: 'What happened', path: '/ledger', asks: {}, meaning: 'Every fact that was kept.' },
  {
    name: 'Who held a grant',
    path: '/ledger/leases',
    asks: {},
    meaning: 'Name the grant, and the times. A lease counts from its announcement until its end was proven.',
  },
  { name: 'What an agent or owner had', path: '/ledger/tasks', asks: {}, meaning: 'Name either, and the times. The owner is the one of that day.' },
  {
    name: 'What was denied',
    path: '/ledger/denials',
    asks: {},
    meaning: 'Decisions that said no. By default: no policy permitted something of it, and none forbade that.',
  },
  {
    name: 'Outlived their task',
    path: '/ledger/leases',
    asks: { outlived_task: '1m' },
    meaning: 'There must be none. What stands here is kept alive by a provider that does not answer.',
  },
  {
    name: 'Ended late',
    path: '/ledger/leases',
    asks: { ended_late: '10s' },
    meaning: 'How long after their end was decided or due it was proven, and what stood in the way.',
  },
  {
    name: 'Never completed',
    path: '/ledger/tasks',
    asks: { completed: 'false' },
    meaning: 'Tasks that were opened, and failed, were revoked or ran out, or are about to.',
  },
  {
    name: 'What an operator did',
    path: '/ledger/operators',
    asks: {},
    meaning: 'Name the operator as the ledger does: what they revoked, stopped and lifted, and their reasons.',
  },
]

/** The usual question that comes nearest: of the same page, and with the most in common. */
function nearest(path: string, question: Question) {
  const agreeing = usual.filter((one) => one.path === path && Object.keys(one.asks).every((name) => question[name] !== undefined))
  return agreeing.toSorted((one, other) => Object.keys(other.asks).length - Object.keys(one.asks).length)[0]!
}

/** A route for each page: the answer to what its address asks, or 400 with what is wrong with it. */
export function ledgerRoutes(broker: Broker, sequencer: Pick<Sequencer, 'refusal'>): Hono<ConsoleEnv> {
  const download = createExports(broker.ledger)
  async function provenIn(c: Context<ConsoleEnv>): Promise<Proven> {
    const id = c.req.param('id') ?? ''
    const found = isId('ent', id) ? await readProven(broker.ledger, id) : undefined
    if (!found) throw new BrokerError('not_found', 'There is no such entry')
    return found
  }
  const routes = new Hono<ConsoleEnv>().get('/ledger/export/:form', async (c) => {
    const form = c.req.param('form')
    if (!isForm(form)) throw new BrokerError('not_found', 'The ledger is exported as csv or ndjson')
    const read = readQuestion(contract.EntryFilter, questionOf(c.req.query()))
    if ('faults' in read) throw requestRefused(read.faults)
    const body = await download(read.filter, form, subjectOf(c.var.caller))
    return c.body(body, 200, { 'content-type': forms[form].type, 'content-disposition': `attachment; filename="ledger.${form}"` })
  })
  routes
    .get('/entries/:id', async (c) => {
      const found = await provenIn(c)
      return await show(c, { title: 'Entry', at: 'ledger', body: renderEntry(c.var.visit.home, found) })
    })
    .get('/entries/:id/proof', async (c) => {
      const { entry, proof } = await provenIn(c)
      if (typeof proof === 'string') throw new BrokerError('not_found', placeless[proof])
      return c.body(proofText(proof), 200, {
        'content-type': 'text/plain; charset=utf-8',
        'content-disposition': `attachment; filename="${entry.id}.tlog-proof"`,
      })
    })
  for (const page of ledgerPages)
    routes.get(page.path, async (c) => {
      const { home } = c.var.visit
      const question = questionOf(c.req.query())
      const [answered, log] = await Promise.all([page.answer(broker.ledger, home, question), readLogStatus(broker.ledger, sequencer.refusal())])
      const isFaulty = answered !== 'not asked' && 'faults' in answered
      return await show(c, { title: 'Ledger', at: 'ledger', body: renderLedger(home, page, question, answered, log) }, isFaulty ? 400 : 200)
    })
  return routes
}

/** What the ledger answers, newest first. */
function renderLedger(home: string, page: LedgerPage, question: Question, answered: Answered, log: LogStatus): Html {
  const current = nearest(page.path, question)
  return html`<h1>Ledger</h1>
    ${renderLogStatus(log)}
    <nav class="questions" aria-label="Questions">
      ${usual.map(
        (one) => html`<a href="${home}${one.path}${addressOf(one.asks)}" ${one === current ? raw('aria-current="page"') : ''}>${one.name}</a>`,
      )}
    </nav>
    <p class="quiet">${current.meaning} Newest first. The address of this page is the question: share it.</p>
    ${renderFilters(`${home}${page.path}`, page.fields, question)}${renderAnswer(home, page, question, answered)}`
}

const isForm = (form: string): form is keyof typeof forms => Object.hasOwn(forms, form)

function renderAnswer(home: string, page: LedgerPage, question: Question, answered: Answered): Html {
  if (answered === 'not asked') return html``
  if ('faults' in answered) return renderFaults(answered.faults)
  const { rows, next } = answered
  const address = `${home}${page.path}`
  return html`${rows}
    <p class="more">
      ${question['cursor'] === undefined ? '' : html`<a href="${address}${addressOf(question)}">Newest</a> `}${next === null ? '' : html`<a rel="next" href="${address}${addressOf(question, next)}">Older</a>`}
      ${page.exported ? html`Download the whole answer as ${renderExport(home, question, 'csv')} or ${renderExport(home, question, 'ndjson')}` : ''}
    </p>`
}

const renderExport = (home: string, question: Question, form: keyof typeof forms): Html =>
  html`<a href="${home}/ledger/export/${form}${addressOf(question)}" download>${form.toUpperCase()}</a>`
