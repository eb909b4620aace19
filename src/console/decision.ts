import { html } from 'hono/html'
import type { DecisionId } from '../base/ids.ts'
import { fieldIn, type Json, textIn } from '../base/json.ts'
import { formatDuration } from '../base/time.ts'
import { type Answer, denialsIn } from '../policy/decide.ts'
import { type Judgement, type Replay, replayDecision } from '../tasks/replay.ts'
import type { Broker } from '../tasks/task.ts'
import type { Html } from './page.ts'
import { renderDenied, renderMoment, renderNames } from './words.ts'
import { policySetOf } from '../ledger/policy-sets.ts'

/** A decision with what it rested on, and what the same question comes to when it is asked again. */
export interface Ground {
  readonly replay: Replay
  /** Policies as they were then, and as they are today, by id. */
  readonly archive: Json | undefined
  readonly today: Readonly<Record<string, string>>
}

/** @throws BrokerError `not_found`, `internal` where the archive lacks its set */
export async function readGround(broker: Broker, id: DecisionId): Promise<Ground> {
  const replay = await replayDecision(broker, id)
  const archived = await policySetOf(broker.ledger, replay.decision.policyDigest)
  return { replay, archive: fieldIn(archived, 'policies'), today: broker.policy().set.texts.policies }
}

/** Why something was permitted or denied, so that somebody else can come to the same answer. */
export function renderDecision(home: string, { replay, archive, today }: Ground): Html {
  const { decision, archived, current } = replay
  const maxTtl = decision.obligations.maxTtl
  return html`<h1>${decision.outcome === 'permit' ? 'Permitted' : 'Denied'} <small>${decision.action} for ${decision.agent}</small></h1>
    <dl class="facts">
      <dt>Decision</dt>
      <dd class="id">${decision.id}</dd>
      <dt>Decided</dt>
      <dd>${renderMoment(decision.decidedAt)} UTC</dd>
      <dt>Task</dt>
      <dd><a href="${home}/tasks/${decision.taskId}">${decision.kind}</a></dd>
      <dt>Determined by</dt>
      <dd>${renderDetermining({ ...decision, denied: denialsIn(decision.answers) })}</dd>
      <dt>Obligations</dt>
      <dd>${maxTtl === undefined ? html`<span class="quiet">none</span>` : `credentials live ${formatDuration(maxTtl)} at most`}</dd>
      <dt>Policy set</dt>
      <dd class="id">${decision.policyDigest}</dd>
    </dl>
    <h2>Asked again</h2>
    <table class="stack">
      <thead>
        <tr>
          <th scope="col">On the policies of</th>
          <th scope="col">Outcome</th>
          <th scope="col">Determined by</th>
          <th scope="col">Is it what was kept?</th>
        </tr>
      </thead>
      <tbody>
        ${renderJudgement('that day', archived)}
        ${renderJudgement(current.digest === decision.policyDigest ? 'today, which are the same' : 'today', current)}
      </tbody>
    </table>
    <h2>Policies that determined an answer, as they were</h2>
    ${decision.policies.length === 0 ? html`<p>None: what no policy permits is denied, and so is what cannot be evaluated.</p>` : decision.policies.map((id) => renderPolicy(id, textIn(archive, id), today[id]))}
    <h2>What the policy was asked</h2>
    ${decision.answers.map(renderAnswer)}`
}

const renderPolicies = (policies: readonly string[]): Html =>
  policies.length === 0 ? html`<span class="quiet">no policy</span>` : renderNames(policies)

/** The policies that permitted, or what denied. */
const renderDetermining = ({ outcome, policies, denied }: Pick<Judgement, 'outcome' | 'policies' | 'denied'>): Html =>
  outcome === 'permit' ? renderPolicies(policies) : renderDenied(denied)

function renderJudgement(name: string, judgement: Judgement): Html {
  return html`<tr>
    <td>${name}</td>
    <td data-label="Outcome">${judgement.outcome === 'permit' ? 'permitted' : 'denied'}</td>
    <td data-label="Determined by">${renderDetermining(judgement)}</td>
    <td data-label="As kept?">
      ${judgement.same ? html`<span class="state alive">the same</span>` : html`<span class="state ending">another answer</span>`}
    </td>
  </tr>`
}

function renderPolicy(id: string, then: string, today: string | undefined): Html {
  const since = today === undefined ? 'It is gone today.' : today === then ? 'It is the same today.' : 'It reads otherwise today.'
  return html`<p><code>${id}</code> <small>${since}</small></p>
    <pre tabindex="0" role="region" aria-label="${id} as it was">${then === '' ? 'It is not in the archived set.' : then}</pre>
    ${
      today !== undefined && today !== then
        ? html`<details>
            <summary>Today</summary>
            <pre tabindex="0" role="region" aria-label="${id} today">${today}</pre>
          </details>`
        : ''
    }`
}

function renderAnswer({ action, resource, outcome, policies, diagnostics, input }: Answer): Html {
  const { entities, context, ...question } = JSON.parse(input) as Readonly<Record<string, Json>>
  const lines = [...named('', question), ...named('context.', context)]
  return html`<p>
      ${action} <code>${resource}</code>: ${outcome === 'permit' ? 'permitted' : 'denied'} by
      ${renderPolicies(policies)}${diagnostics.length > 0 ? html`. <span class="stuck">Could not be evaluated: ${renderNames(diagnostics)}</span>` : ''}
    </p>
    <pre tabindex="0" role="region" aria-label="Question about ${resource}">${lines.join('\n')}</pre>
    <details>
      <summary>Entities that it saw</summary>
      <pre tabindex="0" role="region" aria-label="Entities for ${resource}">${listOf(entities).map(entityText).join('\n\n')}</pre>
    </details>`
}

const listOf = (value: Json | undefined): readonly Json[] => (Array.isArray(value) ? (value as readonly Json[]) : [])

/** `context.ttl = duration("300000ms")`, a line for each field. */
const named = (before: string, fields: Json | undefined): string[] =>
  typeof fields === 'object' && fields !== null ? Object.entries(fields).map(([name, value]) => `${before}${name} = ${cedarText(value)}`) : []

/** An entity with its parents, attributes and tags, as policies can see them. */
function entityText(entity: Json): string {
  const parents = listOf(fieldIn(entity, 'parents')).map(cedarText)
  const heading = [cedarText(fieldIn(entity, 'uid') ?? null), ...(parents.length > 0 ? [`in ${parents.join(', ')}`] : [])].join(' ')
  return [heading, ...named('  ', fieldIn(entity, 'attrs')), ...named('  tag ', fieldIn(entity, 'tags'))].join('\n')
}

/** A value as a policy would write it, out of the JSON in which Cedar is asked: https://docs.cedarpolicy.com/auth/entities-syntax.html */
function cedarText(value: Json): string {
  const reference = fieldIn(value, '__entity') ?? value
  const [type, id] = [textIn(reference, 'type'), textIn(reference, 'id')]
  if (type !== '') return `${type}::${JSON.stringify(id)}`
  const extension = fieldIn(value, '__extn')
  if (extension !== undefined) return `${textIn(extension, 'fn')}(${JSON.stringify(textIn(extension, 'arg'))})`
  return Array.isArray(value) ? `[${value.map((one) => cedarText(one as Json)).join(', ')}]` : JSON.stringify(value)
}
