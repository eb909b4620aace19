import { BrokerError } from '../base/errors.ts'
import type { Clock } from '../base/time.ts'
import type { Actor } from '../identity/actor.ts'
import { matches } from '../identity/match.ts'
import type { Ledger } from '../ledger/connect.ts'
import type { Declarant, Task } from '../ledger/records.ts'
import type { Catalogue } from '../policy/catalogue.ts'
import type { PolicySet } from '../policy/document.ts'
import type { Agent } from '../policy/entry.ts'
import type { Target } from '../providers/target.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Background } from './background.ts'

/** What is decided by: swapped as one object, so that a request never sees the catalogue of one set and the policies of another. */
export interface ActivePolicy {
  readonly catalogue: Catalogue
  readonly set: PolicySet
}

/** What a broker is made of. The verbs of this room are functions over it. */
export interface Broker {
  readonly ledger: Ledger
  /** Providers behind their limits, by name. */
  readonly targets: ReadonlyMap<string, Target>
  policy(): ActivePolicy
  readonly telemetry: Telemetry
  readonly clock: Clock
  readonly limits: Limits
  /** Key of the digests by which a leaked secret can be recognised; shared by all brokers of one ledger. */
  readonly digestKey: Uint8Array
  /** Work that goes on after its request was answered. */
  readonly background: Background
}

export interface Limits {
  /** Live leases of one task at once. */
  readonly leasesPerTask: number
  /** Milliseconds of failing revocation after which a lease is flagged `stuck`. */
  readonly stuckAfter: number
}

/** A task, and the SHA-256 of the token that speaks for it. */
export interface TokenHolder extends Pick<Task, 'id' | 'agent'> {
  readonly tokenHash: string
}

/** Who asks: an agent with its workload token, whoever holds a task's token, an operator or reviewer. One caller may be several of these. */
export interface Caller {
  readonly actor: Actor | undefined
  readonly agent: Agent | undefined
  /** The task whose token was presented. */
  readonly task: TokenHolder | undefined
  readonly roles: ReadonlySet<'operator' | 'reviewer'>
}

/** What an agent declares. Durations in milliseconds; absent: the most that its kind and grants allow. */
export interface Declaration {
  readonly kind: string
  readonly purpose: string
  readonly labels: Readonly<Record<string, string>>
  readonly duration?: number
  readonly deadline?: Date
  readonly grants: readonly GrantRequest[]
}

export interface GrantRequest {
  readonly name: string
  readonly parameters: Readonly<Record<string, string>>
  readonly ttl?: number
}

/**
 * The caller as an agent, as it stands in the catalogue in force now: who it is was found out when its request came in, and the files may have been
 * reloaded since. @throws BrokerError `agent_unknown`, `forbidden` (its token has a claim that policies may see and that cannot be read)
 */
export function agentOf(broker: Broker, { actor, agent }: Caller): { actor: Actor; agent: Agent } {
  const { catalogue } = broker.policy()
  const found = actor && agent && (catalogue.agents.get(agent.name) === agent ? agent : catalogue.agentOf(actor))
  if (!found || found.name !== agent.name) throw new BrokerError('agent_unknown', 'No single agent of the catalogue matches this identity')
  const hidden = found.tags.find((tag) => actor.unreadable?.includes(tag))
  if (hidden !== undefined)
    throw new BrokerError(
      'forbidden',
      `Policies may see the claim ${hidden}, and that of this token cannot be read: it must be text or a list of texts, under one name, without control characters`,
    )
  return { actor, agent: found }
}

/** Whoever asks, as the ledger calls them: by the role in which they may do most. */
export function calledIn({ actor, agent, task, roles }: Caller): string {
  if (!actor) return `task:${task?.id ?? ''}`
  if (roles.has('operator')) return `operator:${actor.issuer}/${actor.subject}`
  if (agent) return `agent:${agent.name}`
  return `${roles.has('reviewer') ? 'reviewer' : 'caller'}:${actor.issuer}/${actor.subject}`
}

export const operatorsOnly = (): BrokerError => new BrokerError('forbidden', 'Only an operator may do this')

/** An operator, as the ledger calls them. @throws BrokerError `forbidden` */
export function operatorNamed(caller: Caller): string {
  if (!caller.roles.has('operator')) throw operatorsOnly()
  return calledIn(caller)
}

/** Whether the task is the caller's own: declared by the same agent, or spoken for by its token. */
export const owns = (caller: Caller, task: Pick<Task, 'id' | 'agent'>): boolean => caller.task?.id === task.id || caller.agent?.name === task.agent

/**
 * Who asks for more within a task: its agent as it stands in the catalogue now, with what its workload token proves, or, where the task's token speaks for it,
 * with what was proven when the task was declared, last renewed, or declared once more with its key.
 *
 * Other workloads of the same agent may end the task, but get nothing of it: what is minted names whoever declared it, at backends and in the ledger.
 * @throws BrokerError `agent_unknown`, `forbidden` (declared by another workload of the agent; or policies may see claims that were not kept: a live workload token has them)
 */
export function agentBehind(broker: Broker, caller: Caller, task: Task): { actor: Actor; agent: Agent } {
  if (caller.actor && caller.agent) {
    if (caller.actor.issuer !== task.actor.issuer || caller.actor.subject !== task.actor.subject)
      throw new BrokerError(
        'forbidden',
        'Another workload of this agent declared the task: only that one gets more within it or renews it; the task token gets further leases and refreshes',
        { task: task.id },
      )
    return agentOf(broker, caller)
  }
  const agent = broker.policy().catalogue.agents.get(task.agent)
  if (!agent || !mayStillBe(agent, task.actor))
    throw new BrokerError('agent_unknown', 'The catalogue no longer has the agent that declared this task')
  if (!agent.tags.every((name) => wasKept(task.actor, name)))
    throw new BrokerError(
      'forbidden',
      'Policies may see claims that were not kept when this task was declared: this needs a live workload token, the task token alone will not do',
      { task: task.id },
    )
  return { actor: task.actor, agent }
}

/** Whether an entry of the catalogue still means whoever declared a task, as far as the ledger keeps what was proven: issuer, subject, what the policy saw. */
function mayStillBe({ issuer, match }: Agent, declarant: Actor): boolean {
  const attributes = { ...declarant.attributes, sub: declarant.subject }
  const known = Object.fromEntries(Object.entries(match).filter(([name]) => Object.hasOwn(attributes, name)))
  return matches({ ...declarant, attributes }, issuer, known)
}

/** Whether the ledger keeps what a claim of the declarant was, or that there was none: a policy that forbids by it would not match where it is merely missing. */
const wasKept = ({ attributes, tags = Object.keys(attributes) }: Declarant, name: string): boolean => tags.includes(name)

/**
 * Whoever declares or renews a task, as the ledger keeps them: of what is proven that which the policy may see, which is in the decision's input too. Of that
 * nothing was unreadable.
 */
export function asDeclarant({ unreadable: _others, ...actor }: Actor, { tags }: Agent): Declarant {
  const attributes = Object.fromEntries(Object.entries(actor.attributes).filter(([name]) => tags.includes(name)))
  return { ...actor, attributes, tags }
}

/** Milliseconds that a request wants to last, from a duration or from a moment. @param now milliseconds */
export function durationOf(asked: Pick<Declaration, 'duration' | 'deadline'>, now: number): { duration?: number } {
  if (asked.deadline) return { duration: asked.deadline.getTime() - now }
  return asked.duration === undefined ? {} : { duration: asked.duration }
}

/** Where a request says it, as a JSON pointer into its body. */
export const placeOfDuration = ({ deadline }: Pick<Declaration, 'deadline'>): string => (deadline ? '/deadline' : '/duration')
