import { html } from 'hono/html'
import { remembered } from '../base/remembered.ts'
import type { Lease, Task } from '../ledger/records.ts'
import { decisionsByMinute, liveByProvider, type LiveCount, type Minute, pressing, type Pressing, timesToDead } from '../ledger/overview.ts'
import type { Broker } from '../tasks/task.ts'
import { minutesShown, renderDecisions, renderTimesToDead } from './chart.ts'
import { liveMark, region, type Html } from './page.ts'
import { count, renderLeaseState, renderPurpose, renderShort, renderTaskState, renderTime, shortened } from './words.ts'

/** Everything that the page shows, as one look found it. */
export interface Sight extends Pressing {
  readonly live: readonly LiveCount[]
  readonly minutes: readonly Minute[]
  readonly times: readonly number[]
  readonly providers: readonly { readonly name: string; readonly failing: boolean }[]
  /** Milliseconds. */
  readonly at: number
}

/** Rows of each list. More than anybody reads at once; the ledger has the rest. */
const most = 25

/** Providers that are shown: a page that is full otherwise stays below 50 kB with them. */
const mostProviders = 15

/** Milliseconds for which a look is shown to whoever else asks, so that a hundred viewers cost the store no more than one. */
const freshFor = { sight: 1_000, past: 10_000 } as const

/** Looks at the whole broker, for as many as want to see. */
export function createLookout(broker: Broker): () => Promise<Sight> {
  const present = remembered(() => Promise.all([pressing(broker.ledger, most), liveByProvider(broker.ledger)]), freshFor.sight, broker.clock)
  // What is over changes slowly, and costs more to count.
  const past = remembered(
    () => Promise.all([decisionsByMinute(broker.ledger, broker.clock() - minutesShown * 60_000), timesToDead(broker.ledger)]),
    freshFor.past,
    broker.clock,
  )
  return async () => {
    const [[seen, live], [minutes, times]] = await Promise.all([present(), past()])
    const providers = [...broker.targets].map(([name, { failing }]) => ({ name, failing }))
    return { ...seen, live, minutes, times, providers, at: broker.clock() }
  }
}

/** What is alive now, what refuses to die and why. */
export function renderNow(home: string, sight: Sight, now: number): Html {
  return html`${liveMark(now)}${Object.entries(nowRegions(home, sight)).map(([id, content]) => region(id, content))}`
}

/** The parts of the page that change, by their ids. */
export function nowRegions(home: string, sight: Sight): Record<string, Html> {
  return {
    summary: renderSummary(sight),
    unfinished: renderUnfinished(home, sight.unfinished),
    tasks: renderTasks(home, byDeadline(sight)),
    providers: renderProviders(home, sight),
    past: html`<div class="charts">
      <div>
        <h2>Decisions</h2>
        ${renderDecisions(sight.minutes, sight.at)}
      </div>
      <div>
        <h2>Time to dead</h2>
        ${renderTimesToDead(sight.times)}
      </div>
    </div>`,
  }
}

function renderSummary({ live, unfinished, open, closing }: Sight): Html {
  const alive = sum(live, ({ count }) => count)
  const stuck = sum(live, ({ stuck }) => stuck)
  const [oldest] = unfinished
  const tasks = open.length + closing.length
  const several = tasks >= most ? `${most} tasks or more` : count(tasks, 'task')
  return html`<h1>${alive === 0 ? 'Nothing is alive' : `${count(alive, 'lease')} in ${several}`}</h1>
    <p>
      ${
        stuck > 0
          ? html`<span class="state stuck">${count(stuck, 'revocation')} ${stuck === 1 ? 'is' : 'are'} stuck</span>`
          : html`<span class="state alive">Nothing is stuck</span>`
      }${oldest?.closingAt ? html`. The oldest unfinished revocation was asked for ${renderTime(oldest.closingAt)}.` : '.'}
    </p>`
}

const sum = <Item>(items: readonly Item[], of: (item: Item) => number): number => items.reduce((total, item) => total + of(item), 0)

function renderUnfinished(home: string, leases: readonly Lease[]): Html {
  if (leases.length === 0) return html``
  return html`<h2>Being ended, without evidence yet</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">State</th>
          <th scope="col">Lease</th>
          <th scope="col">Provider</th>
          <th scope="col">Asked for</th>
          <th scope="col" class="n">Retries</th>
          <th scope="col">What its provider last said</th>
        </tr>
      </thead>
      <tbody>
        ${leases.map(
          (lease) =>
            html`<tr>
              <td>${renderLeaseState(lease)}</td>
              <td><a href="${home}/tasks/${lease.taskId}">${lease.grant}</a> <small>of ${lease.agent}</small></td>
              <td class="tight" data-label="Provider">${lease.provider}</td>
              <td data-label="Asked for">${lease.closingAt && renderTime(lease.closingAt)}</td>
              <td data-label="Retries" class="n">${lease.attempts}</td>
              <td data-label="Last error">${lease.error === null ? html`<span class="quiet">nothing yet</span>` : shortened(lease.error)}</td>
            </tr>`,
        )}
      </tbody>
    </table>`
}

/** The nearest of both; what a closing task waits for stands among the unfinished revocations, or is time. */
const byDeadline = ({ open, closing }: Sight): readonly Task[] =>
  [...open, ...closing].toSorted((one, other) => one.deadline.getTime() - other.deadline.getTime()).slice(0, most)

function renderTasks(home: string, tasks: readonly Task[]): Html {
  if (tasks.length === 0)
    return html`<h2>Tasks by deadline</h2>
      <p class="quiet">No task is open.</p>`
  return html`<h2>Tasks by deadline</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">Task</th>
          <th scope="col">Agent, and who answers for it</th>
          <th scope="col">Purpose, as the agent wrote it</th>
          <th scope="col">State</th>
          <th scope="col" class="n">Alive</th>
          <th scope="col">Deadline</th>
        </tr>
      </thead>
      <tbody>
        ${tasks.map(
          (task) =>
            html`<tr>
              <td><a href="${home}/tasks/${task.id}">${task.kind}</a> ${renderShort(task.id)}</td>
              <td data-label="Agent">${task.agent} <small class="under">${task.owner}</small></td>
              <td data-label="Purpose">${renderPurpose(shortened(task.purpose))}</td>
              <td data-label="State">${renderTaskState(task.state)}</td>
              <td data-label="Alive" class="n">${task.liveLeases}</td>
              <td data-label="Deadline">${renderTime(task.deadline)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
    ${tasks.length >= most ? html`<p class="quiet">The ${tasks.length} nearest.</p>` : ''}`
}

const liveStates = ['reserved', 'active', 'revoking', 'lapsing'] as const

interface ProviderRow {
  readonly name: string
  /** Undefined: it is not configured any more. */
  readonly failing: boolean | undefined
  readonly live: readonly LiveCount[]
}

const stuckOf = ({ live }: ProviderRow): number => sum(live, ({ stuck }) => stuck)
const aliveOf = ({ live }: ProviderRow): number => sum(live, ({ count }) => count)

/** Where somebody has to look before it is looked at where all is well. */
const byUrgency = (one: ProviderRow, other: ProviderRow): number =>
  stuckOf(other) - stuckOf(one) || Number(other.failing !== false) - Number(one.failing !== false) || aliveOf(other) - aliveOf(one)

function renderProviders(home: string, { providers, live }: Sight): Html {
  // Leases may outlive the configuration that had their provider.
  const gone = [...new Set(live.map(({ provider }) => provider))].filter((name) => !providers.some((one) => one.name === name))
  const all = [...providers, ...gone.map((name) => ({ name, failing: undefined }))].map(({ name, failing }): ProviderRow => ({
    name,
    failing,
    live: live.filter(({ provider }) => provider === name),
  }))
  const urgent = all.toSorted(byUrgency)
  const [shown, rest] = [new Set(urgent.slice(0, mostProviders)), urgent.slice(mostProviders)]
  return html`<h2>Providers and their live leases</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">Provider</th>
          <th scope="col">Calls</th>
          ${liveStates.map((state) => html`<th scope="col" class="n">${state}</th>`)}
          <th scope="col" class="n">stuck</th>
        </tr>
      </thead>
      <tbody>
        ${all
          .filter((row) => shown.has(row))
          .map((row) => {
            const counted = liveStates.map((state) => ({ name: state, number: sum(row.live, (one) => (one.state === state ? one.count : 0)) }))
            return html`<tr>
              <td>${row.name}</td>
              <td>${renderHealth(row.failing)}</td>
              ${[...counted, { name: 'stuck', number: stuckOf(row) }].map(renderCount)}
            </tr>`
          })}
      </tbody>
    </table>
    ${rest.length > 0 ? renderRest(home, rest) : ''}`
}

const renderRest = (home: string, rest: readonly ProviderRow[]): Html =>
  html`<p class="quiet">
    And ${count(rest.length, 'provider')} more, with ${count(sum(rest, aliveOf), 'live lease')} and ${count(sum(rest, stuckOf), 'revocation')} stuck:
    <a href="${home}/ledger/leases">all leases</a>.
  </p>`

function renderCount({ name, number }: { readonly name: string; readonly number: number }): Html {
  if (number === 0) return html`<td class="n zero quiet">0</td>`
  return html`<td class="n" data-label="${name}">
    ${name === 'stuck' ? html`<span class="stuck">${number.toLocaleString('en')}</span>` : number.toLocaleString('en')}
  </td>`
}

function renderHealth(failing: boolean | undefined): Html {
  if (failing === undefined) return html`<span class="state stuck">not configured any more</span>`
  return failing ? html`<span class="state stuck">failing</span>` : html`<span class="state alive">answered</span>`
}
