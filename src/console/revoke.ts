import { html } from 'hono/html'
import type { FieldFault } from '../base/errors.ts'
import type { Revocation, Stop } from '../ledger/records.ts'
import { meansLeases, type Selector } from '../ledger/selector.ts'
import { phraseOf, type Plan, selectorOf } from '../tasks/revoke.ts'
import { hiddenToken, type Html, type Visit } from './page.ts'
import { type Field, type Question, renderFaults, renderField } from './question.ts'
import { renderEndingAlready, renderRevocationState } from './revocation.ts'
import { count, endedBy, renderMoment, renderShort, renderTime, shortened } from './words.ts'

/** By what tasks and leases can be chosen. */
export const selectorFields: readonly Field[] = [
  { name: 'agent', label: 'Agent' },
  { name: 'owner', label: 'Owner' },
  { name: 'issuer', label: 'Issuer, as configured' },
  { name: 'kind', label: 'Kind of task' },
  { name: 'grant', label: 'Grant' },
  { name: 'provider', label: 'Provider' },
]

/** What somebody is about to do, as far as they have come. */
export interface Proposal {
  /** What was chosen, as it was written. */
  readonly asked: Question
  /** The dry run. Undefined: nothing was chosen yet, or nothing that makes sense. */
  readonly planned: { readonly selector: Selector; readonly plan: Plan } | undefined
  readonly faults: readonly FieldFault[]
  /** What was written into the second form, where it is shown again. */
  readonly given: Question
}

/** What keeps things from being issued, and what was revoked lately. */
export interface InForce {
  readonly stops: readonly Stop[]
  readonly revocations: readonly Revocation[]
}

/** Ending many at once: choose, see what would end, confirm; and what stands. */
export function renderRevoke(visit: Visit, proposal: Proposal, { stops, revocations }: InForce): Html {
  const isOperator = visit.session?.roles.includes('operator') === true
  return html`<h1>Revoke</h1>
    ${isOperator ? renderProposal(visit, proposal) : html`<p class="quiet">Ending many at once, and lifting a stop, is for operators.</p>`}
    ${renderStops(visit, stops, isOperator)}${renderRevocations(visit.home, revocations)}`
}

function renderProposal(visit: Visit, { asked, planned, faults, given }: Proposal): Html {
  return html`<p class="quiet">
      All that agrees with everything that is named. With a grant or a provider single leases end and their tasks go on; all else ends whole tasks.
    </p>
    <form class="filters" action="${visit.home}/revoke">
      ${selectorFields.map(
        (field) =>
          html`<div>
            <label for="${field.name}">${field.label}</label>
            ${renderField(field, asked[field.name] ?? '')}
          </div>`,
      )}
      <label class="whole"
        ><input type="checkbox" name="everything" value="true" ${asked['everything'] === 'true' ? 'checked' : ''} /> Everything</label
      >
      <button>See what would end</button>
    </form>
    ${faults.length > 0 ? renderFaults(faults) : ''}${planned ? renderPlan(visit, asked, planned.selector, planned.plan, given) : ''}`
}

function renderPlan(
  { home, formToken }: Visit,
  asked: Question,
  selector: Selector,
  { reach, count: number, confirm, unknown }: Plan,
  given: Question,
): Html {
  const leases = reach.leases.reduce((sum, one) => sum + one.count, 0)
  return html`<h2>
      ${meansLeases(selector) ? `${count(leases, 'lease')} of ${count(reach.tasks, 'task')} would end` : `${count(reach.tasks, 'task')} with ${count(leases, 'lease')} would end`}
    </h2>
    ${reach.endingAlready > 0 ? renderEndingAlready(reach.endingAlready) : ''}${unknown.map((named) => html`<p role="alert">This broker knows no ${named}: is it spelled so?</p>`)}
    ${
      reach.leases.length === 0
        ? ''
        : html`<table class="stack">
            <thead>
              <tr>
                <th scope="col">Provider</th>
                <th scope="col">How they end</th>
                <th scope="col" class="n">Leases</th>
              </tr>
            </thead>
            <tbody>
              ${reach.leases.map(
                (one) =>
                  html`<tr>
                    <td>${one.provider}</td>
                    <td data-label="How they end">${endedBy[one.revocation]}</td>
                    <td data-label="Leases" class="n">${one.count.toLocaleString('en')}</td>
                  </tr>`,
              )}
            </tbody>
          </table>`
    }
    <form class="revoke many" method="post" action="${home}/revoke">
      ${hiddenToken(formToken)} ${Object.entries(asked).map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}" />`)}
      <label for="reason">Why they must end. The reason stays in the ledger, with your name.</label>
      <div><input id="reason" name="reason" value="${given['reason'] ?? ''}" required maxlength="500" autocomplete="off" /></div>
      <label for="stop_issuing">Stop issuing the same, from this moment on, for so long or until it is lifted. Empty: issuing goes on.</label>
      <div>
        <input id="stop_issuing" name="stop_issuing" value="${given['stop_issuing'] ?? ''}" placeholder="8h" maxlength="6" autocomplete="off" />
      </div>
      <label for="confirm">To confirm, type <code>${confirm}</code></label>
      <div>
        <input id="confirm" name="confirm" required maxlength="2048" autocomplete="off" autocapitalize="none" spellcheck="false" />
        <button class="end">Revoke ${count(number, meansLeases(selector) ? 'lease' : 'task')} now</button>
      </div>
    </form>`
}

/** What a selector names, in words. */
const meantBy = (row: Parameters<typeof selectorOf>[0]): string => phraseOf(selectorOf(row)).replace(/^revoke /, '')

function renderStops({ home, formToken }: Visit, stops: readonly Stop[], isOperator: boolean): Html {
  if (stops.length === 0)
    return html`<h2>Stops in force</h2>
      <p class="quiet">None: whatever the policies permit is issued.</p>`
  return html`<h2>Stops in force</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">Not issued</th>
          <th scope="col">Why, and who says so</th>
          <th scope="col">Since, UTC</th>
          <th scope="col">Ends by itself</th>
          ${isOperator ? html`<th scope="col">Lift it</th>` : ''}
        </tr>
      </thead>
      <tbody>
        ${stops.map(
          (stop) =>
            html`<tr>
              <td><span class="state stuck">${meantBy(stop)}</span> ${renderShort(stop.id)}</td>
              <td data-label="Why"><span class="said">${shortened(stop.reason)}</span> <small class="under">${stop.by}</small></td>
              <td data-label="Since">${renderMoment(stop.beganAt)}</td>
              <td data-label="Ends">${renderTime(stop.until)}</td>
              ${
                isOperator
                  ? html`<td data-label="Lift it">
                      <form class="lift" method="post" action="${home}/stops/${stop.id}/lift">
                        ${hiddenToken(formToken)}
                        <input
                          name="reason"
                          aria-label="Why ${meantBy(stop)} may be issued again"
                          placeholder="Why"
                          required
                          maxlength="500"
                          autocomplete="off"
                        />
                        <button>Lift</button>
                      </form>
                    </td>`
                  : ''
              }
            </tr>`,
        )}
      </tbody>
    </table>`
}

function renderRevocations(home: string, revocations: readonly Revocation[]): Html {
  if (revocations.length === 0) return html``
  return html`<h2>Revoked lately</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">State</th>
          <th scope="col">What</th>
          <th scope="col">Why, and who said so</th>
          <th scope="col">Started, UTC</th>
          <th scope="col">The last was dead, UTC</th>
        </tr>
      </thead>
      <tbody>
        ${revocations.map(
          (revocation) =>
            html`<tr>
              <td>${renderRevocationState(revocation)}</td>
              <td data-label="What"><a href="${home}/revocations/${revocation.id}">${meantBy(revocation)}</a></td>
              <td data-label="Why"><span class="said">${shortened(revocation.reason)}</span> <small class="under">${revocation.by}</small></td>
              <td data-label="Started">${renderMoment(revocation.startedAt)}</td>
              <td data-label="Dead">${revocation.endedAt && renderMoment(revocation.endedAt)}</td>
            </tr>`,
        )}
      </tbody>
    </table>`
}
