import { html } from 'hono/html'
import type { FieldFault } from '../base/errors.ts'
import { isId } from '../base/ids.ts'
import * as contract from '../http/contract.ts'
import { pageOf } from '../http/paging.ts'
import { fieldFaults } from '../http/problem.ts'
import { entryKinds } from '../ledger/entries.ts'
import { listEntries, type Listed } from '../ledger/lists.ts'
import type { Entry } from '../ledger/records.ts'
import type { Broker } from '../tasks/task.ts'
import type { Html } from './page.ts'
import { grantOf, tell } from './timeline.ts'
import { renderMoment } from './words.ts'

/** A question to the ledger as it stands in the address, so that it can be shared and asked again. */
export type Question = Readonly<Record<string, string>>

/** What a question came to: a page of entries, or what is wrong with it. */
export type Answered = { readonly found: Listed<Entry> } | { readonly faults: readonly FieldFault[] }

/** What was asked; fields of the form that were left empty were not asked. */
export const questionOf = (query: Readonly<Record<string, string>>): Question =>
  Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ''))

/** The same filters as `GET /ledger` has, read by the same shape. */
export async function ask(broker: Broker, question: Question): Promise<Answered> {
  const { data, error } = contract.EntryFilter.safeParse(question)
  if (!data) return { faults: fieldFaults(error, 'query') }
  const { limit, cursor, from, to, ...filter } = data
  if (cursor !== undefined && !isId('ent', cursor)) return { faults: [{ pointer: '?cursor', message: 'must be that of a link to an older page' }] }
  const between = { ...(from !== undefined && { from: new Date(from) }), ...(to !== undefined && { to: new Date(to) }) }
  return { found: await listEntries(broker.ledger, { ...filter, ...between }, pageOf({ limit, cursor })) }
}

/** Entries of the history, newest first. */
export function renderLedger(home: string, question: Question, answered: Answered): Html {
  return html`<h1>Ledger</h1>
    <p class="quiet">What happened, newest first. The address of this page is the question: share it.</p>
    ${renderFilters(home, question)} ${'faults' in answered ? renderFaults(answered.faults) : renderEntries(home, question, answered.found)}`
}

const fields = [
  { name: 'agent', label: 'Agent', hint: '' },
  { name: 'task', label: 'Task', hint: 'task_…' },
  { name: 'lease', label: 'Lease', hint: 'lease_…' },
  { name: 'from', label: 'From', hint: '2026-11-26T09:30:00Z' },
  { name: 'to', label: 'Before', hint: '2026-11-26T10:00:00Z' },
] as const

function renderFilters(home: string, question: Question): Html {
  return html`<form class="filters" action="${home}/ledger">
    <div>
      <label for="kind">Kind</label>
      <select id="kind" name="kind">
        <option value="">any</option>
        ${entryKinds.map((kind) => html`<option ${question['kind'] === kind ? 'selected' : ''}>${kind}</option>`)}
      </select>
    </div>
    ${fields.map(
      ({ name, label, hint }) =>
        html`<div>
          <label for="${name}">${label}</label>
          <input
            id="${name}"
            name="${name}"
            value="${question[name] ?? ''}"
            placeholder="${hint}"
            maxlength="128"
            autocomplete="off"
            spellcheck="false"
          />
        </div>`,
    )}
    <button>Ask</button>
  </form>`
}

const renderFaults = (faults: readonly FieldFault[]): Html =>
  html`<div role="alert">
    <ul class="fault">
      ${faults.map(({ pointer, message }) => html`<li><code>${pointer.replace(/^\?/, '')}</code> ${message}</li>`)}
    </ul>
  </div>`

function renderEntries(home: string, question: Question, { items, next }: Listed<Entry>): Html {
  if (items.length === 0) return html`<p>Nothing is kept that fits.</p>`
  return html`<table class="stack">
      <thead>
        <tr>
          <th scope="col">When, UTC</th>
          <th scope="col">Kind</th>
          <th scope="col">Agent</th>
          <th scope="col">Task</th>
          <th scope="col">What</th>
        </tr>
      </thead>
      <tbody>
        ${items.map(
          (entry) =>
            html`<tr>
              <td>${renderMoment(entry.at)}</td>
              <td class="tight"><code>${entry.kind}</code></td>
              <td class="tight" data-label="Agent">${entry.agent ?? ''}</td>
              <td data-label="Task">
                ${entry.taskId && html`<a class="id short" href="${home}/tasks/${entry.taskId}">…${entry.taskId.slice(-6)}</a>`}
              </td>
              <td data-label="What">${tell(home, entry, grantOf(entry)).text}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    <p>
      ${question['cursor'] === undefined ? '' : html`<a href="${home}/ledger${addressOf(question, undefined)}">Newest</a> `}${next === null ? '' : html`<a rel="next" href="${home}/ledger${addressOf(question, next)}">Older</a>`}
    </p>`
}

function addressOf(question: Question, cursor: string | undefined): string {
  const query = new URLSearchParams(question)
  query.delete('cursor')
  if (cursor !== undefined) query.set('cursor', cursor)
  return query.size === 0 ? '' : `?${query.toString()}`
}
