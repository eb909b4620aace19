import { Hono } from 'hono'
import { BrokerError } from '../base/errors.ts'
import { reasonOf } from '../http/app.ts'
import { asBrokerError } from '../http/problem.ts'
import type { StreamLimits } from '../http/streams.ts'
import type { OperatorEntry } from '../identity/operators.ts'
import type { Sequencer } from '../ledger/sequencer.ts'
import type { Broker } from '../tasks/task.ts'
import { type Entrances, entranceRoutes } from './entrance.ts'
import { createLive } from './live.ts'
import { pageRoutes } from './pages.ts'
import { showFault } from './refusal.ts'
import { createSessions } from './session.ts'
import { type ConsoleEnv, createOwnForm, receive } from './visit.ts'

/** What the console is made of. */
export interface ConsoleParts {
  readonly broker: Broker
  /** Without a trailing slash. */
  readonly publicUrl: string
  readonly operators: readonly OperatorEntry[]
  /** Of sessions, forms and links: shared by all brokers of one public URL. */
  readonly key: Uint8Array
  /** Milliseconds. */
  readonly sessionLifetime: number
  readonly entrances: Entrances
  /** Tells what stands in the way of signing the history. */
  readonly sequencer: Pick<Sequencer, 'refusal'>
  /** Fires when the broker stops: then nothing is live any more. */
  readonly stop: AbortSignal
  readonly live?: StreamLimits
}

/** Pages for operators and reviewers, to be hung under the house's own door. */
export function createConsole(parts: ConsoleParts): Hono<ConsoleEnv> {
  const { broker, publicUrl, operators, key, sessionLifetime, entrances, sequencer } = parts
  const sessions = createSessions({ key, operators, issuer: entrances.issuer?.entry, publicUrl, lifetime: sessionLifetime, clock: broker.clock })
  const ownForm = createOwnForm(publicUrl)
  return new Hono<ConsoleEnv>()
    .use(receive(broker, sessions, publicUrl))
    .route('/', entranceRoutes(parts, sessions, ownForm))
    .route('/', pageRoutes(broker, ownForm, sequencer, createLive(broker.clock, parts.stop, parts.live)))
    .all('*', () => {
      throw new BrokerError('not_found', 'There is no such page')
    })
    .onError((error, c) => showFault(c, asBrokerError(reasonOf(error, c), broker.telemetry.log, c.var.requestId)))
}
