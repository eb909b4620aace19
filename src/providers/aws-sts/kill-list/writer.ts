import { ProviderError, type ProviderSurroundings } from '../../provider.ts'
import type { HeldList, KillLists } from '../../role-sessions.ts'
import type { Canary } from './canary.ts'
import type { Carrier } from './carrier.ts'
import { digestOf, draw, type Drawn } from './world.ts'

/** The kill list of one role, and all that it takes to write it. */
export interface RoleList {
  readonly provider: string
  readonly role: string
  /** Whoever holds the list: one name a process. */
  readonly holder: string
  readonly lists: KillLists
  readonly carrier: Carrier
  readonly canary: Canary
  readonly noticed: NonNullable<ProviderSurroundings['noticed']>
}

/** What AWS was given: every session that was denied when the list was taken is denied by this generation. */
export interface Written {
  readonly generation: number
  /** It denies the role as a whole. */
  readonly shut: boolean
  /** Nobody is denied by it, so that there is nothing to be seen in force. */
  readonly silent: boolean
  readonly rung: number
}

/** Milliseconds that writing may take: within the 30 s of a claim, so that what is given up here does not land in somebody else's turn. */
const longestTurn = 20_000
/** Milliseconds between two comparisons, and to the next one after what was written may have been written over. */
const routine = 3_600_000
const soon = 60_000

/** Another broker has taken over: nothing is known of what was being written. */
const lost = Symbol('lost')

/**
 * Brings AWS up to what was read of the store, by one document at most, and lets the list go. Undefined: somebody else holds it by now; take it again.
 *
 * A crash after any line leaves an intent that is not known to be written: the next holder writes over it, under a generation of its own.
 * @throws ProviderError where AWS did not take it, or nobody knows whether it did; BrokerError `store_unavailable`
 */
export async function writeList(list: RoleList, taken: HeldList): Promise<Written | undefined> {
  const { lists, provider, role, holder, canary } = list
  const signal = AbortSignal.timeout(longestTurn)
  try {
    const capacity = await list.carrier.capacity(signal)
    const asItStands = draw(provider, taken, taken.generation, list.carrier, capacity)
    const found = taken.checkDue ? await compare(list, taken, signal) : 'as written'
    if (found !== 'something else' && !isBehind(taken, asItStands)) {
      if (taken.checkDue) await lists.checked(provider, role, holder, found === 'as written' ? routine : soon)
      return writtenOf(taken.generation, asItStands)
    }

    const held = await closedWhereNeeded(list, taken, capacity)
    if (held === lost) return undefined
    const generation = held.generation + 1
    const drawn = draw(provider, held, generation, list.carrier, capacity)
    // Not while AWS takes no document: each try has a generation of its own.
    if (drawn.digest !== null && wasWritten(taken)) canary.prepare(generation, signal).catch(() => {})
    const { digest, killed, cutoff, rung, sacrificed } = drawn
    if (!(await lists.intend(provider, role, holder, { generation, digest, killed, cutoff, rung, sacrificed }))) return undefined
    await write(list, drawn, signal)
    if (!(await lists.wrote(provider, role, holder, generation, [...drawn.denied, ...sacrificed]))) {
      await lists.disturbed(provider, role)
      return undefined
    }
    // What was on its way before may still land on top of it.
    const isSettled = found === 'as written' && wasWritten(taken)
    if (taken.checkDue || !isSettled) await lists.checked(provider, role, holder, isSettled ? routine : soon)
    return writtenOf(generation, drawn)
  } finally {
    await lists.release(provider, role, holder)
  }
}

/** Where the document only holds once its cohort is closed: closed, and everything read anew. */
async function closedWhereNeeded(list: RoleList, held: HeldList, capacity: number): Promise<HeldList | typeof lost> {
  const { lists, provider, role, holder } = list
  if (!draw(provider, held, held.generation + 1, list.carrier, capacity).closeCohort) return held
  if (!(await lists.closeCohort(provider, role, holder))) return lost
  const again = await lists.take(provider, role, holder, 0)
  return typeof again === 'number' ? lost : again
}

/** Whether what was last written, as far as anybody knows, is not what has to stand there. */
const isBehind = (held: HeldList, { digest }: Drawn): boolean =>
  !wasWritten(held) || digest !== held.digest || held.sessions.some((session) => session.denied && session.generation === undefined)

/** Before the first there is nothing that could be missing. */
const wasWritten = ({ generation, written }: HeldList): boolean => written || generation === 0

/** What AWS has, against what was written. Where nobody knows what was, or it may not be read, nothing is compared: no reason not to write. */
async function compare(
  { carrier, provider, role, noticed }: RoleList,
  held: HeldList,
  signal: AbortSignal,
): Promise<'as written' | 'something else' | 'not known'> {
  const about = { role, carrier: carrier.label }
  try {
    if ((await carrier.isAttached(signal)) === false) noticed(provider, 'error', 'kill_list_not_attached', about)
    if (!wasWritten(held) || held.generation === 0) return 'as written'
    if (digestOf(await carrier.read(signal)) === held.digest) return 'as written'
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    noticed(provider, 'warn', 'kill_list_not_compared', { ...about, why: error.message })
    return 'not known'
  }
  noticed(provider, 'error', 'kill_list_drift', { ...about, generation: held.generation })
  return 'something else'
}

/** Where nobody knows whether it was written, it may still land on top of what is written next: to be looked at. */
async function write({ lists, provider, role, carrier }: RoleList, { document }: Drawn, signal: AbortSignal): Promise<void> {
  try {
    await carrier.write(document, signal)
  } catch (error) {
    if (!(error instanceof ProviderError) || error.minted === 'maybe') await lists.disturbed(provider, role)
    throw error
  }
}

const writtenOf = (generation: number, { refuseMints, digest, rung }: Drawn): Written => ({
  generation,
  shut: refuseMints,
  silent: digest === null,
  rung,
})
