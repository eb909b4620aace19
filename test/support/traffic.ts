import { fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

/** What the callers do: test/support/traffic.mjs. `mixed` is every call of the API and pages of the console, what is refused too; the others are one call over and over, `flood` as often as it is turned away. */
export type Story = 'mixed' | 'declare' | 'flood' | 'introspect' | 'show' | 'refresh' | 'replay' | 'complete'

/** Tokens by whom they are for. */
export type Callers = Readonly<Record<'bot' | 'rival' | 'stranger' | 'ops' | 'reader' | 'api', string>>

export interface Order {
  readonly url: string
  readonly tokens: Callers
  /** Of somebody who has signed in to the console, for `mixed`. */
  readonly cookie?: string
  readonly story: Story
  readonly inFlight: number
  readonly seconds: number
  /** How often the story is played at least, however long that takes. */
  readonly least?: number
}

export interface Seen {
  /** By call as the API's document names it, `GET /tasks/{id}`, and `GET /tasks/{id} watched` where it is a stream: how many answers of each status. */
  readonly answers: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** Answers that the story did not expect, in full as far as they are short. */
  readonly surprises: readonly object[]
}

/** Callers in a process of their own, so that what they need is not taken from the test. */
export interface Traffic {
  play(order: Order): Promise<Seen>
  stop(): Promise<void>
}

export function startTraffic(): Traffic {
  const child = fork(path.join(import.meta.dirname, 'traffic.mjs'), { execArgv: [] })
  return {
    async play(order) {
      child.send(order)
      const [result] = (await once(child, 'message')) as [Seen & { error?: string }]
      if (result.error !== undefined) throw new Error(result.error)
      return result
    },
    async stop() {
      const ended = once(child, 'exit')
      child.disconnect()
      await ended
    },
  }
}
