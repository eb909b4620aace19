import { fieldIn, type Json } from '../base/json.ts'
import { canonical } from './canonical.ts'
import type { Permit } from './permits.ts'

/** A task, as far as the history has told of it. */
export interface TaskStory {
  /** Whose it is, as its first entry says. Undefined: nobody has told of it yet. */
  readonly agent: string | undefined
  /** Milliseconds since 1970. */
  deadline: number
  /** Decisions that permit something. */
  readonly permitting: Map<string, Permitting>
  readonly leases: Set<string>
  ended: number | undefined
}

/** A decision that permits something. */
export interface Permitting {
  readonly xid: string
  readonly at: number
  /** Undefined where its answers are missing, which is another fault. */
  readonly permits: readonly Permit[] | undefined
}

/** @param deadline milliseconds since 1970; where absent, nobody has told of the task yet */
export const newTask = (deadline = Infinity, agent?: string): TaskStory => ({
  agent,
  deadline,
  permitting: new Map(),
  leases: new Set(),
  ended: undefined,
})

/** Until when this decision permits what a lease says of itself, in milliseconds since 1970. Undefined: it does not. */
export function permittedEnd(decision: Permitting | undefined, body: Json): number | undefined {
  if (!decision?.permits) return decision && Infinity
  const [grant, parameters] = [fieldIn(body, 'grant'), canonical(fieldIn(body, 'parameters') ?? null)]
  const permit = decision.permits.find((each) => each.grant === grant && each.parameters === parameters)
  return permit && decision.at + permit.ttl
}
