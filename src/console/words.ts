import { html } from 'hono/html'
import type { Cause, Lease } from '../ledger/records.ts'
import type { LeaseState, TaskState } from '../ledger/states.ts'
import type { Denial } from '../policy/decide.ts'
import type { Html } from './page.ts'

/** What a state means for whoever looks: something works, something is being ended, something resists, nothing is left. */
export type Mood = 'alive' | 'ending' | 'stuck' | 'ended'

const moods: Readonly<Record<TaskState | LeaseState, Mood>> = {
  open: 'alive',
  closing: 'ending',
  denied: 'ended',
  completed: 'ended',
  failed: 'ended',
  revoked: 'ended',
  expired: 'ended',
  reserved: 'alive',
  active: 'alive',
  revoking: 'ending',
  lapsing: 'ending',
}

export const renderTaskState = (state: TaskState): Html => html`<span class="state ${moods[state]}">${state}</span>`

export const renderLeaseState = ({ state, stuckSince }: Pick<Lease, 'state' | 'stuckSince'>): Html =>
  state === 'revoking' && stuckSince !== null
    ? html`<span class="state stuck">stuck</span>`
    : html`<span class="state ${moods[state]}">${state}</span>`

/** How a lease can be ended, in words. */
export const endedBy: Readonly<Record<Lease['revocation'], string>> = {
  provider: 'ended at its source',
  deny: 'denied at its provider, as fast as that propagates',
  expiry: 'only time ends it',
}

/** A moment, absolute; the script makes it relative and keeps this for whoever points at it. */
export const renderTime = (at: Date): Html => html`<time datetime="${at.toISOString()}" data-relative>${absolute(at)}</time>`

/** A moment that is history. */
export const renderMoment = (at: Date): Html => html`<time datetime="${at.toISOString()}">${absolute(at)}</time>`

/** `2026-11-26 09:30:00`, in UTC. */
const absolute = (at: Date): string => at.toISOString().slice(0, 19).replace('T', ' ')

/** What an agent wrote, which nobody has verified. */
export const renderPurpose = (purpose: string): Html =>
  purpose === '' ? html`<span class="quiet">none</span>` : html`<span class="said">${purpose}</span>`

/** The end of an id, by which people tell two things apart; the beginning is the time, and alike. */
export const renderShort = (id: string): Html => html`<small class="id short" title="${id}">…${id.slice(-6)}</small>`

/** Characters of a text in a list. */
const longest = 140

/** A text that somebody else wrote, cut so that no list grows beyond its page. */
export function shortened(text: string): string {
  const characters = Array.from(text)
  return characters.length <= longest ? text : `${characters.slice(0, longest - 1).join('')}…`
}

/** Names as they stand in a file. */
export const renderNames = (names: readonly string[]): Html => html`${names.map((name, at) => html`${at > 0 ? ', ' : ''}<code>${name}</code>`)}`

/** Why each answer said no that did. */
export const renderDenied = (denied: readonly Denial[]): Html =>
  html`${denied.map((denial, at) => html`${at > 0 ? '; ' : ''}${renderReason(denial)}`)}`

function renderReason({ resource, policies, diagnostics }: Denial): Html {
  if (diagnostics.length > 0) return html`<span class="stuck">${resource} could not be decided: ${renderNames(diagnostics)} failed</span>`
  return policies.length > 0
    ? html`${resource} is forbidden by ${renderNames(policies)}`
    : html`<span class="quiet">no policy permits ${resource}</span>`
}

/** `4 leases`. */
export const count = (number: number, noun: string): string => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`

/** Causes as they are kept, for whoever reads a sentence. */
const causes: Readonly<Record<Cause, string>> = {
  completed: 'completed',
  deadline: 'at its deadline',
  revoked: 'revoked',
  mint_failed: 'because minting failed',
  interrupted: 'because its request broke off',
  answer_lost: 'because its answer was lost',
  lease_expired: 'at the end of its time',
  policy: 'by policy',
  limit: 'by a limit',
  stopped: 'because an operator had stopped it',
}

/** One that only a newer broker knows is said as it is kept. */
export const causeOf = (cause: Cause): string => (Object.hasOwn(causes, cause) ? causes[cause] : cause)
