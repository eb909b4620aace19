import { ageOf, type Clock } from './time.ts'

/** Milliseconds for which later callers wait for a question that is under way, before another one is asked. */
const patience = 2_000

/**
 * One answer for all who ask: for a while, and while it is under way. So a question costs the same whoever asks how often, and what does not answer has one more
 * to answer each two seconds and no line of them. Not one alone: a question may stand on a connection that is dead, while the next has its answer at once. An
 * answer that failed is not kept.
 *
 * @param ms for which it is shown to others, from when it was asked; 0: to those alone who ask while it is under way
 */
export function remembered<Answer>(ask: () => Promise<Answer>, ms: number, clock: Clock): () => Promise<Answer> {
  let kept: { readonly answer: Promise<Answer>; readonly askedAt: number; answered: boolean } | undefined

  return () => {
    if (kept && ageOf(kept.askedAt, clock) < (kept.answered ? ms : patience)) return kept.answer
    const question = { answer: ask(), askedAt: clock(), answered: false }
    kept = question
    question.answer.then(
      () => (question.answered = true),
      () => {
        if (kept === question) kept = undefined
      },
    )
    return question.answer
  }
}
