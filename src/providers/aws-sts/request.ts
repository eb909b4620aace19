import { readUpTo } from '../../base/bytes.ts'
import { stopwatch } from '../../base/time.ts'
import { ProviderError } from '../provider.ts'
import { type AwsAction, faultOf, tooLarge } from './answers.ts'

/** Told of every request: `outcome` is `ok` or a ProviderFault. */
export type Observe = (action: AwsAction, outcome: string, seconds: number) => void

/** Milliseconds for one attempt. The SDK has no limit of its own, and only warns past `requestTimeout` unless it is told to throw. */
const attempt = { connectionTimeout: 1_000, requestTimeout: 3_000, throwOnRequestTimeout: true } as const

/** Reads an answer whole, if it is no longer. The SDK has no limit of its own, and its parser of XML (xml-builder 3.972) none that is kept within seconds. */
const upTo = (most: number) => async (stream: AsyncIterable<Uint8Array>) => {
  const answer = await readUpTo(stream, most)
  if (!answer) throw Object.assign(new Error(`the answer is larger than ${most} bytes`), { name: tooLarge })
  return new Uint8Array(answer)
}

/** How every client asks, and what it reads. STS answers a few thousand bytes; IAM shows policies whose white space counts for nothing but has to be sent. */
export const asksSts = { requestHandler: attempt, streamCollector: upTo(65_536) } as const
export const asksIam = { requestHandler: attempt, streamCollector: upTo(262_144) } as const

/** Makes one request: it is told of, and what it throws is a ProviderError. */
export type Ask = <Answer>(action: AwsAction, call: () => Promise<Answer>) => Promise<Answer>

/** @param name of the provider */
export function asking(name: string, observe: Observe): Ask {
  return async (action, call) => {
    const elapsed = stopwatch()
    let outcome = 'ok'
    try {
      return await call()
    } catch (error) {
      const fault = faultOf(name, action, error)
      outcome = fault.fault
      throw fault
    } finally {
      observe(action, outcome, elapsed() / 1_000)
    }
  }
}

/** A command of the SDK, as far as each of its attempts can be listened to. */
interface Attempted {
  readonly middlewareStack: {
    add(
      listen: <Args, Output>(next: (args: Args) => Promise<Output>) => (args: Args) => Promise<Output>,
      at: { readonly step: 'deserialize'; readonly priority: 'high' },
    ): void
  }
}

/**
 * Makes one request that makes a session. Of its attempts the SDK throws the last alone: one that was refused says nothing of the one before it, whose
 * answer was lost. A session may be left of that, and the lease must not be told that nothing was made.
 */
export async function makingSession<Command extends Attempted, Answer>(
  { name, ask, action }: { readonly name: string; readonly ask: Ask; readonly action: AwsAction },
  command: Command,
  send: (command: Command) => Promise<Answer>,
): Promise<Answer> {
  let left = false
  // Innermost but for what reads the answer: it is passed once an attempt.
  command.middlewareStack.add(
    (next) => async (args) => {
      try {
        return await next(args)
      } catch (error) {
        left ||= faultOf(name, action, error).minted === 'maybe'
        throw error
      }
    },
    { step: 'deserialize', priority: 'high' },
  )
  try {
    return await ask(action, () => send(command))
  } catch (error) {
    if (!left || !(error instanceof ProviderError) || error.minted === 'maybe') throw error
    throw error.as({ minted: 'maybe' })
  }
}
