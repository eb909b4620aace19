import { createHash } from 'node:crypto'
import type { HeldList, ListedSession } from '../../../base/kill-lists.ts'
import { ProviderError } from '../../provider.ts'
import { longestCall } from '../../shapes.ts'
import { canariesOf } from './canary.ts'
import type { Carrier } from './carrier.ts'
import { type KillList, killList, type Session } from './ladder.ts'

/** A document as it would be written. `digest` is null where nobody is denied, and the document then undefined. */
export interface Drawn extends KillList {
  readonly digest: string | null
  /** Names of sessions that it denies because they ended. */
  readonly denied: readonly string[]
}

/** Milliseconds that AWS's clock may differ from the store's. */
const skew = 60_000

/**
 * The document of a generation for what was read of the store: the same bytes for the same generation of the same world, so that its digest says
 * whether what was written still stands.
 *
 * @throws ProviderError `downstream` where not even the shortest denial fits
 */
export function draw(provider: string, held: HeldList, generation: number, carrier: Pick<Carrier, 'base'>, capacity: number): Drawn {
  const denied = held.sessions.filter((session) => session.denied)
  const living = held.sessions.filter((session) => !session.denied)
  const isSilent = denied.length === 0 && held.killed.length === 0 && held.cutoff === undefined
  const about = { denied: denied.map(asSession), living: living.map(asSession), open: held.open, killed: held.killed, cutoff: held.cutoff }
  let list: KillList
  try {
    list = killList({ ...about, canaries: isSilent ? [] : canariesOf(generation, held.salt), base: carrier.base, capacity })
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new ProviderError('downstream', `${provider} cannot write the kill list: ${error.message}`, 'no', { cause: error })
  }
  const document = isSilent ? undefined : list.document
  return { ...list, document, digest: digestOf(document), denied: denied.map(({ name }) => name) }
}

/** SHA-256, hex. */
export const digestOf = (document: string | undefined): string | null =>
  document === undefined ? null : createHash('sha256').update(document).digest('hex')

const asSession = ({ name, earliest, latest }: ListedSession): Session => ({
  name,
  earliest: new Date(earliest.getTime() - skew),
  // Of a refresh it is when that was announced: STS is asked afterwards, and issues the session before that call ends.
  ...(latest && { latest: new Date(latest.getTime() + longestCall + skew) }),
})
