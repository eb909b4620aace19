import { expect } from 'vitest'
import { deadlinePasses } from '../support/deadline.ts'
import { accepted, type Answer, type Held } from './held.ts'
import { type Deed, deed } from './matrix.ts'
import type { Stage } from './stage.ts'

/** What differs between the ends of a task, by the backend that stands behind it. */
interface End<On extends Stage> {
  readonly crosses: readonly string[]
  readonly kills?: Deed['kills']
  given(scene: On): Promise<Held>
  isDead(scene: On, task: Held): Promise<void>
}

interface Ended {
  readonly task: { readonly state: string }
  readonly ended: boolean
}

/** A busy machine takes its time. */
const patiently = { prefer: 'wait=30' }

export const completes = <On extends Stage>(end: End<On>): Deed<unknown, undefined, On> =>
  asked('completes a task', 'completed', end, ({ post, tokens }, { task }) => post(tokens.bot, `/tasks/${task.id}/complete`, {}, patiently))

export const revokes = <On extends Stage>(end: End<On>): Deed<unknown, undefined, On> =>
  asked('revokes a task', 'revoked', end, ({ post, tokens }, { task }) =>
    post(tokens.ops, `/tasks/${task.id}/revoke`, { reason: 'a crash' }, patiently),
  )

/** The end that nobody asks for. */
export const expires = <On extends Stage>({ crosses, given, isDead }: End<On>): Deed<unknown, undefined, On> =>
  deed<Held, undefined, On>({
    words: 'ends a task at its deadline',
    crosses,
    given,
    due: ({ owner }, { task }) => owner.unsafe(deadlinePasses(`id = '${task.id}'`)),
    through: async ({ owner }, { task }) => (await owner`select 1 from tasks where id = ${task.id} and state = 'expired'`).length > 0,
    async holds(scene, task) {
      const [kept] = await scene.owner`select state, cause from tasks where id = ${task.task.id}`
      expect(kept).toEqual({ state: 'expired', cause: 'deadline' })
      await isDead(scene, task)
    },
  })

function asked<On extends Stage>(
  words: string,
  becomes: string,
  { crosses, kills, given, isDead }: End<On>,
  ask: (scene: On, task: Held) => Promise<Answer<Ended>>,
): Deed<unknown, undefined, On> {
  return deed<Held, string, On>({
    words,
    crosses,
    ...(kills && { kills }),
    given,
    async ask(scene, task) {
      const { task: kept, ended } = accepted(await ask(scene, task))
      return ended ? kept.state : 'still ending'
    },
    async holds(scene, task, answered) {
      expect(answered).toBe(becomes)
      await isDead(scene, task)
    },
  })
}
