import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { expect } from 'vitest'

/** What runs until it is interrupted, as in a terminal of its own. */
export interface Terminal {
  /** Until it has printed this. @throws with its own words where it ends before */
  prints(text: string): Promise<void>
  text(): string
  /** Ctrl-C. @returns its exit status */
  interrupt(): Promise<number | null>
}

export function terminal(command: string, args: readonly string[], environment: Readonly<Record<string, string | undefined>>): Terminal {
  const child: ChildProcess = spawn(command, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  const chunks: string[] = []
  for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
  const closed = once(child, 'close')
  const text = () => chunks.join('')
  return {
    text,
    async prints(wanted) {
      for (let look = 0; look < 1_000 && !text().includes(wanted); look++) {
        if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended: ${text()}`)
        // There is nothing to wait on but the process itself.
        await pause(50)
      }
      expect(text()).toContain(wanted)
    },
    async interrupt() {
      child.kill('SIGINT')
      const [status] = (await closed) as [number | null]
      return status
    },
  }
}
