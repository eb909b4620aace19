import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A call of the http contract. */
export type LabCall = 'put' | 'delete' | 'get' | 'check'

/** What the lab does instead of answering: test/support/lab/faults.mjs. */
export type LabFault =
  | 'refuses'
  | 'refuses without a word'
  | 'fails'
  | 'is overloaded'
  | 'resets'
  | 'hangs'
  | 'held'
  | 'slow'
  | 'garbage'
  | 'another media type'
  | 'half'
  | 'floods'
  | 'redirects'
  | 'outlives'
  | 'promises it for later'
  | 'forgets'

export interface FaultDetails {
  /** Whether the work was done before the answer went wrong. */
  readonly done?: boolean
  /** How many calls in a row; one where absent. */
  readonly times?: number
  /** Milliseconds of `slow`. */
  readonly ms?: number
  /** Where `redirects` sends the caller. */
  readonly to?: string
}

/** A credential that the lab minted. */
export interface LabCredential {
  readonly lease: string
  readonly task: string
  readonly secret: string
}

/** A backend of kind `http` in its own process, as a test sees and commands it. */
export interface Lab {
  /** Where it speaks the contract: `url` of a provider of kind `http`. */
  readonly url: string
  /** Orders what happens to the next call of this kind. */
  next(call: LabCall, how: LabFault, details?: FaultDetails): Promise<void>
  /** Forgets faults that were ordered and have not happened. */
  clear(): Promise<void>
  /** Resolves once a call of this kind hangs or is held, with its work done where that was ordered. */
  hanging(call: LabCall): Promise<void>
  /** Lets every held call go on as if it had just arrived, and cuts those that hang. Resolves when their work is done. */
  release(): Promise<void>
  /** Closes its port, and every connection to it; opens it again. */
  down(): Promise<void>
  up(): Promise<void>
  /** Moves the lab's clock. @param ms milliseconds ahead of the machine's */
  clock(ms: number): Promise<void>
  /** Every credential that works now. */
  alive(): Promise<readonly LabCredential[]>
  /** Whether this secret works now. */
  works(secret: string): Promise<boolean>
  /** Every credential that it ever minted. */
  minted(): Promise<readonly LabCredential[]>
  /** Every call that reached it, oldest first. */
  calls(): Promise<readonly { readonly call: LabCall; readonly lease: string | null; readonly at: string }[]>
  stop(): Promise<void>
}

/** Starts a lab, with a bearer token that callers must show where one is given, or in front of another server of the same contract. */
export async function startLab(options: { readonly token?: string; readonly upstream?: string } = {}): Promise<Lab> {
  const server = fileURLToPath(new URL('./lab/server.mjs', import.meta.url))
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const child = spawn(process.execPath, [server, ...flags], { stdio: ['pipe', 'pipe', 'inherit'] })
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  const { url, control } = JSON.parse(line) as { url: string; control: string }

  async function order<T>(name: string, body: object = {}): Promise<T> {
    const answer = await fetch(`${control}/lab/${name}`, { method: 'POST', body: JSON.stringify(body) })
    if (!answer.ok) throw new Error(`the lab cannot ${name}: ${await answer.text()}`)
    return (await answer.json()) as T
  }

  return {
    url,
    next: (call, how, details) => order('next', { call, how, ...details }),
    clear: () => order('clear'),
    hanging: (call) => order('hanging', { call }),
    release: () => order('release'),
    down: () => order('down'),
    up: () => order('up'),
    clock: (ms) => order('clock', { offset: ms }),
    alive: () => order('alive'),
    works: async (secret) => (await order<{ works: boolean }>('use', { secret })).works,
    minted: () => order('minted'),
    calls: () => order('calls'),
    async stop() {
      const ended = once(child, 'exit')
      child.stdin.end()
      await ended
    },
  }
}
