import type { HeldList, KillLists } from '../../../base/kill-lists.ts'
import { ProviderError } from '../../provider.ts'
import type { ListAlarm } from './alarms.ts'
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
  /** As its provider's surroundings are told, and of nothing whose count does not begin at 0. */
  readonly noticed: (provider: string, level: 'info' | 'warn' | 'error', event: ListAlarm, detail: Readonly<Record<string, string | number>>) => void
}

/** What AWS was given: every session that was denied when the list was taken is denied by this generation. */
export interface Written {
  readonly generation: number
  /** It denies the role as a whole. */
  readonly shut: boolean
  /** Nobody is denied by it, so that there is nothing to be seen in force. */
  readonly silent: boolean
  /** Step of the ladder; undefined where nothing had to be written. */
  readonly rung: number | undefined
}

/** Milliseconds that writing may take: within the 30 s of a claim, so that what is given up here does not land in somebody else's turn. */
const longestTurn = 20_000
/** Milliseconds between two comparisons, and to the next one after what was written may have been written over. */
const routine = 3_600_000
const soon = 60_000

/**
 * Brings AWS up to what was read of the store, by one document at most, and lets the list go. Undefined: somebody else holds it by now, or it may not be
 * written yet and has to be; take it again.
 *
 * A crash after any line leaves an intent that is not known to be written: the next holder writes over it, under a generation of its own.
 * @param mayWrite whether the last document is old enough
 * @throws ProviderError where AWS did not take it, or nobody knows whether it did; BrokerError `store_unavailable`
 */
export async function writeList(list: RoleList, taken: HeldList, mayWrite: boolean): Promise<Written | undefined> {
  const { lists, provider, role, holder, canary } = list
  const signal = AbortSignal.timeout(longestTurn)
  try {
    const capacity = await list.carrier.capacity(signal)
    const asItStands = draw(provider, taken, taken.generation, list.carrier, capacity)
    const isCompared = taken.checkDue && mayWrite
    const found = isCompared ? await compare(list, taken, signal) : 'as written'
    if (found !== 'something else' && !isBehind(taken, asItStands)) {
      if (isCompared) await lists.checked(provider, role, holder, found === 'as written' ? routine : soon)
      return { ...writtenOf(taken.generation, asItStands), rung: undefined }
    }
    if (!mayWrite) return undefined

    const generation = taken.generation + 1
    const drawn = await drawnToHold(list, taken, generation, capacity)
    if (!drawn) return undefined
    // Not while AWS takes no document: each try has a generation of its own.
    if (drawn.digest !== null && wasWritten(taken)) canary.prepare(generation, taken.salt, signal).catch(() => {})
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

/**
 * The document to be written. Where it only holds once the cohort is closed in which names are given out, that is closed and everything read anew: the
 * second step of the ladder. Undefined: somebody else holds the list by now.
 */
async function drawnToHold(list: RoleList, held: HeldList, generation: number, capacity: number): Promise<Drawn | undefined> {
  const { lists, provider, role, holder, carrier } = list
  const drawn = draw(provider, held, generation, carrier, capacity)
  if (!drawn.closeCohort) return drawn
  if (!(await lists.closeCohort(provider, role, holder))) return undefined
  const again = await lists.take(provider, role, holder, 0)
  if (typeof again === 'number') return undefined
  const closed = draw(provider, again, generation, carrier, capacity)
  return closed.rung === 1 ? { ...closed, rung: 2 } : closed
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
