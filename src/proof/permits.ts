import { fieldIn, type Json, textIn } from '../base/json.ts'
import { canonical } from './canonical.ts'

/** What one answer of a decision permits to be issued. */
export interface Permit {
  readonly grant: string
  /** As canonical JSON. */
  readonly parameters: string
  /** Milliseconds from the decision on. */
  readonly ttl: number
}

/**
 * What a decision permits to be issued, read out of its answers and the policy engine's input in each; whether it was made of them is for `DecisionCheck`.
 * None where it was about a renewal or a task without grants. Never throws: an answer that cannot be read permits nothing.
 */
export const permitsIn = (answers: readonly Json[]): readonly Permit[] =>
  answers.filter((answer) => fieldIn(answer, 'outcome') === 'permit' && fieldIn(answer, 'action') === 'issue').flatMap(permitOf)

function permitOf(answer: Json): readonly Permit[] {
  try {
    const input = JSON.parse(textIn(answer, 'input')) as Json
    const maxTtl = fieldIn(fieldIn(answer, 'obligations'), 'maxTtl')
    const ttl = Math.min(durationIn(input), typeof maxTtl === 'number' ? maxTtl : Infinity)
    return [{ grant: textIn(answer, 'resource'), parameters: canonical(parametersIn(input)), ttl }]
  } catch {
    return []
  }
}

/** Milliseconds for which it was asked, a duration of Cedar's; 0 where there is none. */
function durationIn(input: Json): number {
  const duration = fieldIn(fieldIn(input, 'context'), 'ttl')
  return Number(/^(\d+)ms$/.exec(textIn(fieldIn(duration, '__extn'), 'arg'))?.[1] ?? 0)
}

/** The parameters that were asked for are the tags of this one entity. */
function parametersIn(input: Json): Json {
  const entities = fieldIn(input, 'entities')
  const ask = Array.isArray(entities) ? (entities as readonly Json[]).find((entity) => textIn(fieldIn(entity, 'uid'), 'type') === 'Ask') : undefined
  return fieldIn(ask, 'tags') ?? null
}
