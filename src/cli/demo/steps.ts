import { formatDuration, stopwatch } from '../../base/time.ts'
import type { HeldLease, OpenTask } from '../../client/client.ts'
import { type Output, paint } from '../output.ts'

/** One step of a demo. */
export interface Step {
  readonly step: string
  readonly outcome: string
  readonly ms: number
  readonly ok: boolean
}

/** What a demo shows: it does something, says in words what came of it, and whether that is what was promised. */
export interface Show {
  step(words: string, ok: (outcome: string) => boolean, act: () => Promise<string>): Promise<void>
  /** Its history is shown at the end. */
  task(opened: OpenTask): OpenTask
}

/** Keeps the steps of a demo, and prints each as soon as it is done. */
export function createShow(output: Output): Show & { readonly steps: readonly Step[]; readonly tasks: readonly OpenTask[] } {
  const steps: Step[] = []
  const tasks: OpenTask[] = []
  return {
    steps,
    tasks,
    async step(words, ok, act) {
      const elapsed = stopwatch()
      const outcome = await act()
      const done = { step: words, outcome, ms: Math.round(elapsed() * 10) / 10, ok: ok(outcome) }
      steps.push(done)
      if (!output.json) console.log(line(output, done))
    },
    task(opened) {
      tasks.push(opened)
      return opened
    },
  }
}

export const is =
  (wanted: string) =>
  (outcome: string): boolean =>
    outcome.includes(wanted)

export const anything = (): boolean => true

/** The time that a credential has when it is handed out. */
export const lifeOf = ({ issued_at: issued, expires_at: expires }: HeldLease): string =>
  formatDuration(new Date(expires).getTime() - new Date(issued ?? expires).getTime())

function line(output: Output, { step, outcome, ms, ok }: Step): string {
  const mark = ok ? paint(output, 'green', 'ok  ') : paint(output, 'red', 'FAIL')
  return `${mark} ${`${ms.toFixed(1)} ms`.padStart(10)}  ${step.padEnd(48)} ${outcome}`
}
