import { ageOf, type Clock } from './time.ts'

/**
 * One answer for all who ask: for a while, and while it is under way, however long that takes. So a question costs the same whoever asks how often, and what does
 * not answer has one to answer and no line of them. An answer that failed is not kept.
 *
 * @param ms for which it is shown to others, from when it was asked; 0: to those alone who ask while it is under way
 */
export function remembered<Answer>(ask: () => Promise<Answer>, ms: number, clock: Clock): () => Promise<Answer> {
  let kept: Promise<Answer> | undefined
  /** When what is kept was asked; undefined until it is answered. */
  let askedAt: number | undefined

  async function question(): Promise<Answer> {
    const begun = clock()
    const answer = await ask()
    askedAt = begun
    return answer
  }

  return () => {
    if (kept && (askedAt === undefined || ageOf(askedAt, clock) < ms)) return kept
    askedAt = undefined
    kept = question()
    kept.catch(() => (kept = undefined))
    return kept
  }
}
