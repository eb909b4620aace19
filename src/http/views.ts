import type { Receipt } from '../base/receipt.ts'
import { formatDuration } from '../base/time.ts'
import type { LogRecord } from '../ledger/checkpoints.ts'
import type { DecisionRecord, DecisionSummary, Entry, Lease, Revocation, Stop, Task } from '../ledger/records.ts'
import type { Selector } from '../ledger/selector.ts'
import { type Denial, denialsIn, type Obligations } from '../policy/decide.ts'
import type { Judgement } from '../tasks/replay.ts'
import type { Caller } from '../tasks/task.ts'
import type {
  DecisionDetail,
  DecisionView,
  DenialView,
  EntryView,
  LeaseView,
  LogView,
  ReceiptView,
  ReplayView,
  RevocationView,
  Selector as SelectorView,
  StopView,
  TaskView,
} from './contract.ts'

/*
 * Records as they look on the wire: snake_case, times in RFC 3339, and what does not apply is absent rather than null. None has a place for a
 * secret; digests, handles, token hashes and the queue's own columns stay inside.
 */

export function viewTask(task: Task, caller: Pick<Caller, 'roles'>): TaskView {
  return {
    id: task.id,
    state: task.state,
    kind: task.kind,
    agent: task.agent,
    owner: task.owner,
    purpose: task.purpose,
    labels: { ...task.labels },
    opened_at: task.openedAt.toISOString(),
    deadline: task.deadline.toISOString(),
    ...whereItApplies({
      cause: task.cause,
      ended_at: task.endedAt?.toISOString(),
      ...viewEnder(task, caller),
      revoked_in: task.revokedIn,
    }),
  }
}

export function viewLease(lease: Lease, caller: Pick<Caller, 'roles'>): LeaseView {
  return {
    id: lease.id,
    task: lease.taskId,
    agent: lease.agent,
    owner: lease.owner,
    grant: lease.grant,
    provider: lease.provider,
    state: lease.state,
    revocation: lease.revocation,
    parameters: { ...lease.parameters },
    expires_at: lease.expiresAt.toISOString(),
    ...whereItApplies({
      issued_at: lease.issuedAt?.toISOString(),
      standing: lease.standing ? (true as const) : undefined,
      outlives_revocation: lease.outlivesRevocation.length > 0 ? [...lease.outlivesRevocation] : undefined,
      closing_at: lease.closingAt?.toISOString(),
      ended_at: lease.endedAt?.toISOString(),
      cause: lease.cause,
      ...viewEnder(lease, caller),
      revoked_in: lease.revokedIn,
      evidence: lease.evidence,
      error: lease.error,
      stuck_since: lease.stuckSince?.toISOString(),
    }),
  }
}

/** Who ended it, and why. Of many that were ended at once only for who runs the broker or reads its ledger: one that is ended with them need not read what is known about it. */
const viewEnder = ({ reason, endedBy, revokedIn }: Task | Lease, { roles }: Pick<Caller, 'roles'>) =>
  revokedIn !== null && roles.size === 0 ? {} : { reason, ended_by: endedBy }

export function viewDecision(decision: DecisionSummary): DecisionView {
  return {
    id: decision.id,
    action: decision.action,
    outcome: decision.outcome,
    policies: [...decision.policies],
    policy_digest: decision.policyDigest,
    obligations: viewObligations(decision.obligations),
    decided_at: decision.decidedAt.toISOString(),
  }
}

/** With what it was about. */
const viewSubject = (decision: DecisionSummary) => ({ ...viewDecision(decision), task: decision.taskId, agent: decision.agent, kind: decision.kind })

export const viewDenial = (decision: DecisionRecord): DenialView => ({ ...viewSubject(decision), denied: viewDenied(denialsIn(decision.answers)) })

const viewDenied = (denied: readonly Denial[]): DenialView['denied'] =>
  denied.map(({ resource, policies, diagnostics }) => ({ resource, policies: [...policies], diagnostics: [...diagnostics] }))

export const viewJudgement = (digest: string, { outcome, policies, denied, same }: Judgement): ReplayView['archived'] => ({
  policy_digest: digest,
  outcome,
  policies: [...policies],
  denied: viewDenied(denied),
  same,
})

/** With every answer and its whole input: for reviewers, who may see what the policy saw. */
export function viewDecisionDetail(decision: DecisionRecord): DecisionDetail {
  return {
    ...viewSubject(decision),
    answers: decision.answers.map((answer) => ({
      action: answer.action,
      resource: answer.resource,
      outcome: answer.outcome,
      policies: [...answer.policies],
      obligations: viewObligations(answer.obligations),
      diagnostics: [...answer.diagnostics],
      input: answer.input,
    })),
  }
}

export function viewRevocation(revocation: Revocation): RevocationView {
  return {
    id: revocation.id,
    selector: viewSelector(revocation),
    reason: revocation.reason,
    by: revocation.by,
    state: revocation.endedAt ? 'ended' : revocation.begunAt ? 'proving' : 'ending',
    started_at: revocation.startedAt.toISOString(),
    ...whereItApplies({ ended_at: revocation.endedAt?.toISOString() }),
  }
}

export function viewStop(stop: Stop): StopView {
  return {
    id: stop.id,
    selector: viewSelector(stop),
    reason: stop.reason,
    by: stop.by,
    began_at: stop.beganAt.toISOString(),
    until: stop.until.toISOString(),
    ...whereItApplies({ lifted_at: stop.liftedAt?.toISOString(), lifted_by: stop.liftedBy, lift_reason: stop.liftReason }),
  }
}

function viewSelector({ agent, owner, issuer, kind, grant, provider }: Pick<Stop, keyof Selector>): SelectorView {
  const named = whereItApplies({ agent, owner, issuer, kind, grant, provider })
  return Object.keys(named).length > 0 ? named : { everything: true }
}

export function viewEntry(entry: Entry): EntryView {
  return {
    id: entry.id,
    at: entry.at.toISOString(),
    xid: entry.xid,
    kind: entry.kind,
    ...whereItApplies({ agent: entry.agent, task: entry.taskId, lease: entry.leaseId, decision: entry.decisionId }),
    body: entry.body,
  }
}

export const viewReceipts = (receipts: readonly Receipt[]): ReceiptView[] =>
  receipts.map(({ entry, kind, leafHash }) => ({ entry, kind, leaf_hash: leafHash }))

export function viewLog({ log, origin, key, size, closed, note }: LogRecord): LogView {
  return { number: log.number, origin, ...whereItApplies({ key }), first: log.first, size, closed, checkpoint: note }
}

function viewObligations(obligations: Obligations): { max_ttl?: string } {
  return obligations.maxTtl === undefined ? {} : { max_ttl: formatDuration(obligations.maxTtl) }
}

type Present<Fields> = { [Name in keyof Fields]?: NonNullable<Fields[Name]> }

/** The fields that have a value. */
function whereItApplies<Fields extends Record<string, unknown>>(fields: Fields): Present<Fields> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined)) as Present<Fields>
}
