import { createHash } from 'node:crypto'

/** Tags of a session, and which of them a further role's session inherits: conditions ask for them as `aws:PrincipalTag/mayfly:task`. */
export interface SessionTags {
  readonly tags: readonly { readonly Key: string; readonly Value: string }[]
  readonly transitive: readonly string[]
}

/** What is said of a session, each under a key of its own. */
export type SessionFacts = Readonly<Record<'lease' | 'task' | 'agent' | 'owner' | 'kind' | 'grant', string>>

/** What a value may be made of, in ASCII (STS API reference, Tag; `aws:` is AWS's own). */
const takenByAws = /^(?!aws:)[a-z0-9 _.:/=+@-]{0,256}$/i

/** A text as a tag can say it: itself, or the first 32 hex digits of its SHA-256 where AWS does not take it. */
const valueOf = (text: string): string => (takenByAws.test(text) ? text : `sha256:${createHash('sha256').update(text).digest('hex').slice(0, 32)}`)

/**
 * Says in AWS whose session it is. The keys are these alone, and each value is the catalogue's or the broker's own: purpose, labels and parameters are an
 * agent's text, and what a condition asks for must not be. Lease and task are transitive, as the source identity is: the base deny refuses further roles,
 * and whatever reached one all the same would still be known.
 */
export function sessionTags({ lease, task, agent, owner, kind, grant }: SessionFacts): SessionTags {
  const tags = Object.entries({ lease, task, agent, owner, kind, grant }).map(([name, text]) => ({ Key: `mayfly:${name}`, Value: valueOf(text) }))
  return { tags, transitive: ['mayfly:lease', 'mayfly:task'] }
}
