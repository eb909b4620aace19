import type { Client } from '../../client/client.ts'
import { makePrivateFolder } from '../exec/credential-files.ts'
import type { Signals } from '../exec/child.ts'
import { keepAll, type Kept, type Tell, usualPace } from '../exec/keep.ts'
import { type Declared, endedEarly, withTask } from '../exec/with-task.ts'
import { UsageError } from '../failure.ts'
import { type Delivery, deliver } from './delivery.ts'
import { withoutOtherAws } from './environment.ts'
import { onlySessionOf } from './session.ts'

export interface ServeOptions extends Declared {
  /** On 127.0.0.1; 0 takes any free one. */
  readonly port: number
  /** What is to find the session is likely to have the same; the file with the endpoint's token is put below its XDG_RUNTIME_DIR, in a private folder. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Changes of an environment with which an SDK finds the session, and nothing else; undefined for what must not be there. */
export type Changes = Readonly<Record<string, string | undefined>>

/**
 * Serves the AWS session of a task of its own to whatever runs beside it, until a signal comes or the task is ended, and completes the task then.
 *
 * @param ready takes what an SDK needs to find the session and no other credentials, once it can be fetched
 * @returns 0, or 1 where the task was ended by somebody else
 * @throws UsageError (no such session, a port that is taken), MayflyProblem, BrokerUnreachable
 */
export async function serveSession(
  client: Client,
  options: ServeOptions,
  ready: (changes: Changes) => void,
  tell: Tell,
  pace = usualPace,
): Promise<number> {
  return withTask(client, options, tell, pace, (kept, signals) => serveWhileWanted(kept, options, ready, signals))
}

async function serveWhileWanted(
  kept: Kept,
  { port, environment, duration }: ServeOptions,
  ready: (changes: Changes) => void,
  signals: Signals,
): Promise<number> {
  const session = onlySessionOf(kept.task.leases)
  const folder = await makePrivateFolder(environment['XDG_RUNTIME_DIR'])
  let delivery: Delivery | undefined
  try {
    delivery = await deliver(session, kept, folder, port).catch((error: unknown) => {
      throw (error as NodeJS.ErrnoException).code === 'EADDRINUSE' ? new UsageError(`--port ${port}: is taken`) : error
    })
    const { hold, variables } = delivery
    const others = await withoutOtherAws(environment, folder)
    const over = new AbortController()
    signals.hear = () => over.abort()
    // Between the last look at `first` and this line nothing waits, so that no signal is lost.
    if (signals.first !== undefined) return 0
    ready({ ...others, ...variables })
    await keepAll(kept, duration, { stop: () => over.abort() }, async (fresh) => hold(fresh), over.signal)
    return kept.ended === undefined ? 0 : endedEarly
  } finally {
    await delivery?.close()
    await folder.remove()
  }
}
