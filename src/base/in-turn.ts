import { describe } from './errors.ts'

/**
 * Runs every step to its end, even if earlier ones failed: a step that keeps failing must not keep the others from ending anything.
 *
 * @param steps in their order, by the name under which a failure is reported
 * @throws Error with each step that failed and why, when all have had their turn
 */
export async function inTurn(steps: Readonly<Record<string, () => Promise<void>>>, isOver: () => boolean = () => false): Promise<void> {
  const failed: string[] = []
  for (const [name, step] of Object.entries(steps)) {
    if (isOver()) break
    try {
      await step()
    } catch (error) {
      failed.push(`${name}: ${describe(error)}`)
    }
  }
  if (failed.length > 0) throw new Error(failed.join('; '))
}
