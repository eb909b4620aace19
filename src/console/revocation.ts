import { html } from 'hono/html'
import { viewRevocation } from '../http/views.ts'
import type { Revocation } from '../ledger/records.ts'
import type { LeaseState, TaskState } from '../ledger/states.ts'
import type { Progress } from '../ledger/revocations.ts'
import { phraseOf, selectorOf } from '../tasks/revoke.ts'
import { liveMark, region, type Html, type Visit } from './page.ts'
import { count, type Mood, renderLeaseState, renderMoment, renderTaskState, renderTime } from './words.ts'

const words: Readonly<Record<ReturnType<typeof viewRevocation>['state'], { readonly text: string; readonly mood: Mood }>> = {
  ending: { text: 'ending', mood: 'ending' },
  proving: { text: 'waiting for evidence', mood: 'ending' },
  ended: { text: 'all dead', mood: 'ended' },
}

export function renderRevocationState(revocation: Revocation): Html {
  const { text, mood } = words[viewRevocation(revocation).state]
  return html`<span class="state ${mood}">${text}</span>`
}

/** Leases that a revocation means beside what it ends itself: it has not ended before they are dead. */
export const renderEndingAlready = (number: number): Html =>
  html`<p>${count(number, 'lease')} more ${number === 1 ? 'was' : 'were'} ending already and ${number === 1 ? 'is' : 'are'} not proven dead.</p>`

/** How far the end of many has come. */
export const renderRevocation = (visit: Visit, progress: Progress): Html =>
  html`${liveMark(visit.now)}${Object.entries(revocationRegions(progress)).map(([id, content]) => region(id, content))}`

/** The parts of the page that change, by their ids. */
export function revocationRegions({ revocation, tasks, leases, stuck, endingAlready }: Progress): Record<string, Html> {
  const { id, reason, by, startedAt, endedAt } = revocation
  return {
    head: html`<h1>${phraseOf(selectorOf(revocation))}</h1>
      <p>
        ${renderRevocationState(revocation)}${endedAt ? html` since ${renderMoment(endedAt)} UTC` : ''}${stuck > 0 ? html` <span class="state stuck">${stuck.toLocaleString('en')} stuck</span>` : ''}
      </p>
      <dl class="facts">
        <dt>Revocation</dt>
        <dd class="id">${id}</dd>
        <dt>Started</dt>
        <dd>${renderTime(startedAt)}</dd>
        <dt>By</dt>
        <dd><code>${by}</code></dd>
        <dt>Reason</dt>
        <dd><span class="said">${reason}</span></dd>
      </dl>`,
    progress: html`${renderCounts(
      'Tasks',
      Object.entries(tasks).map(([state, number]) => [renderTaskState(state as TaskState), number]),
    )}${renderCounts(
      'Leases',
      Object.entries(leases).map(([state, number]) => [renderLeaseState({ state: state as LeaseState, stuckSince: null }), number]),
    )}${endingAlready > 0 ? renderEndingAlready(endingAlready) : ''}`,
  }
}

function renderCounts(title: string, counts: readonly (readonly [Html, number])[]): Html {
  if (counts.length === 0)
    return html`<h2>${title}</h2>
      <p class="quiet">None yet.</p>`
  return html`<h2>${title}</h2>
    <dl class="facts">
      ${counts.map(
        ([state, number]) =>
          html`<dt>${state}</dt>
            <dd>${number.toLocaleString('en')}</dd>`,
      )}
    </dl>`
}
