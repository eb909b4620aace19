import { html } from 'hono/html'
import type { ZodType } from 'zod'
import type { FieldFault } from '../base/errors.ts'
import * as contract from '../http/contract.ts'
import { askForDenials, askForEntries, askForLeases, askForTasks } from '../http/questions.ts'
import type { Ledger } from '../ledger/connect.ts'
import { entryKinds } from '../proof/entry-kinds.ts'
import type { Listed } from '../ledger/lists.ts'
import type { DecisionRecord, Entry, Lease, Task } from '../ledger/records.ts'
import { type Denial, denialsIn } from '../policy/decide.ts'
import type { Html } from './page.ts'
import { type Field, type Question, readQuestion } from './question.ts'
import { grantOf, tell } from './timeline.ts'
import { causeOf, renderDenied, renderLeaseState, renderMoment, renderPurpose, renderShort, renderTaskState, shortened } from './words.ts'

/** A page of an answer; what is wrong with the question; or nothing, where it names too little to be one. */
export type Answered = { readonly rows: Html; readonly next: string | null } | { readonly faults: readonly FieldFault[] } | 'not asked'

/** Something that can be asked of the ledger: with the parameters, and the meaning, that the API has for it. */
export interface LedgerView {
  readonly fields: readonly Field[]
  /** Whether the answer can be had as a file. */
  readonly exported: boolean
  answer(ledger: Ledger, home: string, question: Question): Promise<Answered>
}

interface Table<Filter, Item> {
  readonly shape: ZodType<Filter>
  ask(ledger: Ledger, filter: Filter): Promise<Listed<Item>>
  readonly columns: readonly string[]
  row(home: string, item: Item): Html
}

/** Rows of a page unless its address says otherwise: with the longest words in them it stays below 50 kB. */
const usual = '40'

const answerIn =
  <Filter extends { readonly limit?: string | undefined }, Item>({ shape, ask, columns, row }: Table<Filter, Item>): LedgerView['answer'] =>
  async (ledger, home, question) => {
    const read = readQuestion(shape, question)
    if ('faults' in read) return read
    const { items, next } = await ask(ledger, { ...read.filter, limit: read.filter.limit ?? usual })
    if (items.length === 0) return { rows: html`<p>Nothing is kept that fits.</p>`, next }
    const rows = html`<table class="stack">
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col">${column}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${items.map((item) => row(home, item))}
      </tbody>
    </table>`
    return { rows, next }
  }

const agent: Field = { name: 'agent', label: 'Agent' }
const owner: Field = { name: 'owner', label: 'Owner' }
const task: Field = { name: 'task', label: 'Task', hint: 'task_…' }
const between: readonly Field[] = [
  { name: 'from', label: 'From', hint: '2026-11-26T09:30:00Z' },
  { name: 'to', label: 'Before', hint: '2026-11-26T10:00:00Z' },
]
const by: Field = { name: 'by', label: 'By operator', hint: 'operator:ISSUER/SUBJECT', longest: 2_048 }

const answerEntries = answerIn<contract.EntryFilter, Entry>({
  shape: contract.EntryFilter,
  ask: askForEntries,
  columns: ['When, UTC', 'Kind', 'Agent', 'Task', 'What'],
  row: (home, entry) =>
    html`<tr>
      <td>${renderMoment(entry.at)}</td>
      <td class="tight">
        <a href="${home}/entries/${entry.id}"><code>${entry.kind}</code></a>
      </td>
      <td class="tight" data-label="Agent">${entry.agent ?? ''}</td>
      <td data-label="Task">${entry.taskId && linkToTask(home, entry.taskId)}</td>
      <td data-label="What">${tell(home, entry, grantOf(entry)).text}</td>
    </tr>`,
})

const answerLeases = answerIn<contract.LeaseFilter, Lease>({
  shape: contract.LeaseFilter,
  ask: askForLeases,
  columns: ['State', 'Grant', 'Agent, and who answers for it', 'Task', 'Held from, UTC', 'Until, UTC', 'Late', 'How it ended, and why late'],
  row: (home, lease) =>
    html`<tr>
      <td>${renderLeaseState(lease)}</td>
      <td data-label="Grant">${lease.grant} ${renderShort(lease.id)}</td>
      <td data-label="Agent">${lease.agent} <small class="under">${lease.owner}</small></td>
      <td data-label="Task">${linkToTask(home, lease.taskId)}</td>
      <td data-label="Held from">${renderMoment(lease.reservedAt)}</td>
      <td data-label="Until">${lease.endedAt && renderMoment(lease.endedAt)}</td>
      <td data-label="Late" class="tight">${latenessOf(lease)}</td>
      <td data-label="How">${renderEnd(lease)}${lease.error && html` <small class="under">${shortened(lease.error)}</small>`}</td>
    </tr>`,
})

const answerTasks = answerIn<contract.TaskFilter, Task>({
  shape: contract.TaskFilter,
  ask: askForTasks,
  columns: ['State', 'Task', 'Agent, and who answers for it', 'Opened, UTC', 'Ended, UTC', 'How it ended', 'Purpose, as the agent wrote it'],
  row: (home, found) =>
    html`<tr>
      <td>${renderTaskState(found.state)}</td>
      <td data-label="Task"><a href="${home}/tasks/${found.id}">${found.kind}</a> ${renderShort(found.id)}</td>
      <td data-label="Agent">${found.agent} <small class="under">${found.owner}</small></td>
      <td data-label="Opened">${renderMoment(found.openedAt)}</td>
      <td data-label="Ended">${found.endedAt && renderMoment(found.endedAt)}</td>
      <td data-label="How">${renderEnd(found)}</td>
      <td data-label="Purpose">${renderPurpose(shortened(found.purpose))}</td>
    </tr>`,
})

const answerDenials = answerIn<contract.DenialFilter, DecisionRecord>({
  shape: contract.DenialFilter,
  ask: askForDenials,
  columns: ['When, UTC', 'Agent', 'Kind', 'Asked for', 'Why', 'Decision', 'Task'],
  row: (home, { id, decidedAt, agent: asking, kind, action, answers, taskId }) =>
    html`<tr>
      <td>${renderMoment(decidedAt)}</td>
      <td data-label="Agent">${asking}</td>
      <td data-label="Kind">${kind}</td>
      <td data-label="Asked for">${action}</td>
      <td data-label="Why">${renderFirstDenied(denialsIn(answers))}</td>
      <td data-label="Decision"><a class="id short" href="${home}/decisions/${id}">…${id.slice(-6)}</a></td>
      <td data-label="Task">${linkToTask(home, taskId)}</td>
    </tr>`,
})

export const entries: LedgerView = {
  fields: [{ name: 'kind', label: 'Kind', choices: entryKinds }, agent, task, { name: 'lease', label: 'Lease', hint: 'lease_…' }, ...between, by],
  exported: true,
  answer: answerEntries,
}

export const operatorDeeds: LedgerView = {
  fields: [by, ...between],
  exported: true,
  answer: async (ledger, home, question) => (question['by'] === undefined ? 'not asked' : await answerEntries(ledger, home, question)),
}

export const leases: LedgerView = {
  fields: [
    { name: 'grant', label: 'Grant' },
    agent,
    owner,
    ...between,
    { name: 'provider', label: 'Provider' },
    { name: 'state', label: 'State', choices: contract.LeaseFilter.shape.state.unwrap().options },
    { name: 'ended_late', label: 'Ended late by more than', hint: '10s' },
    { name: 'outlived_task', label: 'Outlived task by more than', hint: '1m' },
  ],
  exported: false,
  answer: answerLeases,
}

export const tasks: LedgerView = {
  fields: [
    agent,
    owner,
    { name: 'kind', label: 'Kind' },
    ...between,
    { name: 'state', label: 'State', choices: contract.TaskFilter.shape.state.unwrap().options },
    { name: 'completed', label: 'Completed', choices: ['false'] },
  ],
  exported: false,
  answer: answerTasks,
}

export const denials: LedgerView = {
  fields: [{ name: 'policy', label: 'By policy' }, { name: 'by_default', label: 'By default', choices: ['true'] }, agent, task, ...between],
  exported: false,
  answer: answerDenials,
}

/** As many as a row has room for: the decision has all. */
const renderFirstDenied = (denied: readonly Denial[]): Html =>
  html`${renderDenied(denied.slice(0, 3))}${denied.length > 3 ? html`; <span class="quiet">and ${denied.length - 3} more</span>` : ''}`

const linkToTask = (home: string, id: string): Html => html`<a class="id short" href="${home}/tasks/${id}">…${id.slice(-6)}</a>`

/** `0.4 s`: how long after its end was decided or due the end was proven. */
const latenessOf = ({ endedAt, closingAt }: Lease): string =>
  endedAt && closingAt ? `${(Math.max(0, endedAt.getTime() - closingAt.getTime()) / 1_000).toFixed(1)} s` : ''

function renderEnd({ cause, reason, endedBy }: Pick<Lease, 'cause' | 'reason' | 'endedBy'>): Html {
  return html`${cause ? causeOf(cause) : ''}${endedBy && endedBy !== 'broker' ? html` by <code>${endedBy}</code>` : ''}${reason ? html`: <span class="said">${shortened(reason)}</span>` : ''}`
}
