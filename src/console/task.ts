import { html } from 'hono/html'
import { listEntries } from '../ledger/lists.ts'
import { type DecisionSummary, type Entry, hasEnded, type Lease, type Task } from '../ledger/records.ts'
import type { TaskId } from '../base/ids.ts'
import { showTask } from '../tasks/show.ts'
import type { Broker, Caller } from '../tasks/task.ts'
import { hiddenToken, liveMark, region, type Html, type Visit } from './page.ts'
import { renderTimeline } from './timeline.ts'
import { causeOf, endedBy, renderLeaseState, renderMoment, renderPurpose, renderShort, renderTaskState, renderTime } from './words.ts'

/** A task with its whole story. */
export interface Story {
  readonly task: Task
  readonly leases: readonly Lease[]
  readonly decisions: readonly DecisionSummary[]
  /** Oldest first. */
  readonly entries: readonly Entry[]
  /** Whether there are older ones. */
  readonly cut: boolean
}

/** Entries, and leases, of one page. A task with some leases has ten to thirty entries; the ledger has the rest of those that have more. */
const most = { entries: 100, leases: 40 }

/** @throws BrokerError `not_found` */
export async function readStory(broker: Broker, caller: Caller, id: TaskId): Promise<Story> {
  const [shown, { items, next }] = await Promise.all([
    showTask(broker, caller, id),
    listEntries(broker.ledger, { task: id }, { limit: most.entries }),
  ])
  return { ...shown, entries: items.toReversed(), cut: next !== null }
}

/** The whole story of a task, and the way to end it. */
export function renderTask(visit: Visit, story: Story): Html {
  const { head, leases, history } = taskRegions(visit.home, story)
  return html`${liveMark(visit.now)} ${region('head', head!)} ${region('leases', leases!)} ${renderEnding(visit, story.task)}
  ${region('history', history!)}`
}

/** The parts of the page that change, by their ids. */
export function taskRegions(home: string, story: Story): Record<string, Html> {
  return { head: renderHead(story), leases: renderLeases(story.leases), history: renderHistory(home, story) }
}

function renderHead({ task }: Story): Html {
  const labels = Object.entries(task.labels)
  return html`<h1>${task.kind} <small>of ${task.agent}</small></h1>
    <p>${renderTaskState(task.state)}${renderEnd(task)}</p>
    <dl class="facts">
      <dt>Task</dt>
      <dd class="id">${task.id}</dd>
      <dt>Owner</dt>
      <dd>${task.owner}</dd>
      <dt>Deadline</dt>
      <dd>${task.endedAt ? renderMoment(task.deadline) : renderTime(task.deadline)}</dd>
      <dt>Identity</dt>
      <dd><code>${task.actor.subject}</code> <small>proven by ${task.actor.issuer}</small></dd>
      <dt>Purpose</dt>
      <dd>${renderPurpose(task.purpose)} <small>written by the agent, not verified</small></dd>
      ${
        labels.length > 0
          ? html`<dt>Labels</dt>
              <dd>${labels.map(([name, value]) => html`<code>${name}=${value}</code> `)}<small>written by the agent, not verified</small></dd>`
          : ''
      }
    </dl>`
}

function renderEnd({ state, cause, reason, endedBy: by, endedAt, closingAt }: Task): Html {
  const at = endedAt ?? closingAt
  if (state === 'open' || !at) return html``
  return html` ${renderTime(at)}${cause ? `, ${causeOf(cause)}` : ''}${by && by !== 'broker' ? html` by <code>${by}</code>` : ''}${reason ? html`: <span class="said">${reason}</span>` : ''}`
}

function renderLeases(leases: readonly Lease[]): Html {
  if (leases.length === 0)
    return html`<h2>Leases</h2>
      <p class="quiet">This task was given none.</p>`
  const shown =
    leases.length <= most.leases
      ? leases
      : [...leases.filter((lease) => !hasEnded(lease)), ...leases.filter(hasEnded).toReversed()].slice(0, most.leases)
  return html`<h2>Leases</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">State</th>
          <th scope="col">Grant</th>
          <th scope="col">Provider</th>
          <th scope="col">How it ends</th>
          <th scope="col">Expires</th>
          <th scope="col">Evidence, or what stands in the way</th>
        </tr>
      </thead>
      <tbody>
        ${shown.map(renderLease)}
      </tbody>
    </table>
    ${shown.length < leases.length ? html`<p class="quiet">${shown.length} of ${leases.length}: those that live, and the latest.</p>` : ''}`
}

function renderLease(lease: Lease): Html {
  const parameters = Object.entries(lease.parameters)
  return html`<tr>
    <td>${renderLeaseState(lease)}</td>
    <td data-label="Grant">${lease.grant}${parameters.map(([name, value]) => html` <code>${name}=${value}</code>`)} ${renderShort(lease.id)}</td>
    <td class="tight" data-label="Provider">${lease.provider}</td>
    <td data-label="How it ends">${endedBy[lease.revocation]}${lease.standing ? ', but its secret lives on' : ''}</td>
    <td data-label="Expires">${lease.endedAt ? renderMoment(lease.expiresAt) : renderTime(lease.expiresAt)}</td>
    <td data-label="Evidence">${renderProof(lease)}</td>
  </tr>`
}

function renderProof({ state, evidence, error, stuckSince, closingAt, attempts }: Lease): Html {
  if (evidence) return html`${evidence.statement} <small>said by the ${evidence.by} at ${renderMoment(new Date(evidence.at))}</small>`
  if (state === 'expired') return html`<span class="quiet">its time is over</span>`
  if (error !== null)
    return html`<span class="${stuckSince ? 'stuck' : 'ending'}">${error}</span>
      <small>${attempts} ${attempts === 1 ? 'retry' : 'retries'}${stuckSince ? html`, stuck ${renderTime(stuckSince)}` : ''}</small>`
  return closingAt ? html`<span class="quiet">none yet</span>` : html``
}

/** For operators, while there is something to end. A plain form, so that it works where no script does. */
function renderEnding({ home, session, formToken }: Visit, task: Task): Html {
  if (task.state !== 'open') return html``
  if (!session?.roles.includes('operator')) return html`<p class="quiet">Ending this task is for operators.</p>`
  return html`<form class="revoke" method="post" action="${home}/tasks/${task.id}/revoke">
    ${hiddenToken(formToken)}
    <label for="reason">Why it must end. The reason stays in the ledger, with your name.</label>
    <div><input id="reason" name="reason" required maxlength="500" autocomplete="off" /><button class="end">End this task now</button></div>
  </form>`
}

function renderHistory(home: string, { entries, leases, cut, task }: Story): Html {
  return html`<h2>What happened</h2>
    ${cut ? html`<p class="quiet">The latest ${entries.length} entries; <a href="${home}/ledger?task=${task.id}">all are in the ledger</a>.</p>` : ''}
    ${renderTimeline(home, entries, new Map(leases.map((lease) => [lease.id, lease])))}`
}
