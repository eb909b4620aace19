import { html } from 'hono/html'
import type { ZodType } from 'zod'
import type { FieldFault } from '../base/errors.ts'
import { fieldFaults } from '../http/problem.ts'
import type { Html } from './page.ts'

/** A question to the ledger as it stands in the address, so that it can be shared and asked again. */
export type Question = Readonly<Record<string, string>>

/** What was asked; fields of the form that were left empty were not asked. */
export const questionOf = (query: Readonly<Record<string, string>>): Question =>
  Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ''))

/** Reads a question by the shape that the API reads it by. */
export function readQuestion<Filter>(
  shape: ZodType<Filter>,
  question: Question,
): { readonly filter: Filter } | { readonly faults: readonly FieldFault[] } {
  const { data, error } = shape.safeParse(question)
  return error ? { faults: fieldFaults(error, 'query') } : { filter: data }
}

/** The question as an address has it, about another page of its answer; about the first where no cursor is given. */
export function addressOf(question: Question, cursor?: string): string {
  const query = new URLSearchParams(question)
  query.delete('cursor')
  if (cursor !== undefined) query.set('cursor', cursor)
  return query.size === 0 ? '' : `?${query.toString()}`
}

/** A field of the form in which a question is put. */
export interface Field {
  readonly name: string
  readonly label: string
  readonly hint?: string
  /** What can be chosen, where not everything can be written. */
  readonly choices?: readonly string[]
  readonly longest?: number
}

/** @param action path of the page that answers */
export function renderFilters(action: string, fields: readonly Field[], question: Question): Html {
  // What the address asks and the form has no field for goes on being asked.
  const kept = Object.entries(question).filter(([name]) => name !== 'cursor' && !fields.some((field) => field.name === name))
  return html`<form class="filters" action="${action}">
    ${fields.map(
      (field) =>
        html`<div>
          <label for="${field.name}">${field.label}</label>
          ${renderField(field, question[field.name] ?? '')}
        </div>`,
    )}
    ${kept.map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}" />`)}
    <button>Ask</button>
  </form>`
}

export function renderField({ name, hint = '', choices, longest = 128 }: Field, value: string): Html {
  if (choices)
    return html`<select id="${name}" name="${name}">
      <option value="">any</option>
      ${choices.map((choice) => html`<option ${value === choice ? 'selected' : ''}>${choice}</option>`)}
    </select>`
  return html`<input
    id="${name}"
    name="${name}"
    value="${value}"
    placeholder="${hint}"
    maxlength="${longest}"
    autocomplete="off"
    spellcheck="false"
  />`
}

/** What is wrong with what was asked, each by the name of its field. */
export const renderFaults = (faults: readonly FieldFault[]): Html =>
  html`<div role="alert">
    <ul class="fault">
      ${faults.map(({ pointer, message }) => html`<li><code>${pointer.replace(/^[?/]/, '')}</code> ${message}</li>`)}
    </ul>
  </div>`
