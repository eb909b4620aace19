import { newId } from '../base/ids.ts'
import type { NewDecision } from '../ledger/entries.ts'
import type { DecisionRecord, Lease } from '../ledger/records.ts'
import { decide } from '../policy/decide.ts'
import type { Inquiry } from '../policy/inquiry.ts'
import type { TaskId } from '../base/ids.ts'
import type { Broker, GrantRequest } from './task.ts'

/** Asks the policy in force about an inquiry, and counts the answer. The decision is made, not kept yet: that is the announcing commit's part. */
export function decideOn(broker: Broker, inquiry: Inquiry): NewDecision {
  const made = decide(broker.policy().set, inquiry, new Date(broker.clock()))
  broker.telemetry.metrics.decisions.inc({ action: inquiry.action, outcome: made.outcome })
  return { id: newId('dec'), agent: inquiry.agent.name, kind: inquiry.kind.name, action: inquiry.action, made }
}

/** A decision that was just kept, as it stands in the ledger. @param at the store's time of the commit that kept it */
export function keptDecision({ made, ...decision }: NewDecision, taskId: TaskId, at: Date): DecisionRecord {
  return { ...decision, ...made, taskId, decidedAt: at }
}

/** What a lease was given, to be asked for once more: as long as it was permitted, or as its grant allows by now. */
export function askedAgain(broker: Broker, { grant, parameters, ttl }: Lease): GrantRequest {
  return { name: grant, parameters, ttl: Math.min(ttl, broker.policy().catalogue.grants.get(grant)?.maxTtl ?? ttl) }
}

/** Milliseconds that a task may last from now. Where the policy answers for it as a whole, its shortest word counts; else that is about what is issued in it. */
export const taskLasts = ({ action, duration }: Inquiry, { made }: NewDecision): number =>
  action === 'declare' ? cappedBy(duration, made.obligations.maxTtl) : duration

/** Milliseconds that a grant may have under its answer: what was asked for, or less where a determining policy says so. */
export const cappedBy = (asked: number, maxTtl: number | undefined): number => Math.min(asked, maxTtl ?? asked)
