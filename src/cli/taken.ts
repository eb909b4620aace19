import { describe } from '../base/errors.ts'
import type { OpenTask } from '../client/client.ts'
import { say } from './output.ts'

/**
 * Hands out the only copy of a task's credentials. Where nobody takes it the task is completed: it would live on until its deadline, of use to nobody.
 *
 * @throws what kept it from being taken
 */
export async function orComplete(task: OpenTask, handOut: () => Promise<void>): Promise<void> {
  try {
    await handOut()
  } catch (error) {
    await task
      .complete()
      .catch((failed: unknown) => say(`mayfly: ${task.id} could not be completed and lives until its deadline: ${describe(failed)}`))
    throw error
  }
}
