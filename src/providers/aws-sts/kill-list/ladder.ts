import type { Statement } from '../policy.ts'
import { assertCanary, assertCohort, assertSession, cohortOf, type Denials, render, renderShut } from './document.ts'

/** A session at AWS, and what is known of when AWS issued it, by AWS's clock. */
export interface Session {
  name: string
  /** Not issued before this: when its name was recorded, less what the clocks may differ by; or the answer's expiry less the duration asked. */
  earliest: Date
  /** Not issued after this. Unknown while the mint is under way, and where its answer was lost. */
  latest?: Date | undefined
}

/** All that a role's kill list depends on, read in one moment. */
export interface World {
  /** Ended, and what AWS issued may still be valid: until its expiry and 120 s have passed. */
  denied: readonly Session[]
  /** Not ended, from before it is asked for at AWS. A name that stands in both lists is denied. */
  living: readonly Session[]
  /** The cohort that names are still given out in. Its pattern would deny a session that this world has not heard of. */
  open: string
  /** Sessions that are denied whatever else is, to see from outside that a document is in force. */
  canaries: readonly string[]
  /** Cohorts given up by an earlier document. */
  killed: readonly string[]
  /** The cutoff of an earlier document. */
  cutoff?: Date | undefined
  /** Characters that AWS takes: 6,144 in a boundary; in an inline policy 10,240 less the role's others. */
  capacity: number
  /** What the carrier must say beside the denials: a boundary allows everything, an inline policy says nothing more. */
  base: readonly Statement[]
}

/**
 * What the document had to resort to, by the number of the step: 1 nothing, 2 the open cohort must close, 4 cohorts are given up, 5 a cutoff for
 * the role, 6 the role is shut. Step 3, other roles of the pool, is taken with the name of a session: see `openRoles` in ledger/session-names.ts.
 */
export type Rung = 1 | 2 | 4 | 5 | 6

export interface KillList {
  /** To be written as it stands. Undefined: there is nothing to say, and an inline policy is deleted. */
  document: string | undefined
  /** Characters, never above the capacity. White space, which AWS does not count, could only stand inside of `base`, and is counted. */
  size: number
  rung: Rung
  /**
   * The document holds only once nothing is named in the open cohort any more: close it, read the world anew and render again. Written as it
   * stands, it also denies what was named in between.
   */
  closeCohort: boolean
  /** Cohorts denied without exception, to be handed in again; one leaves with the last of its sessions. */
  killed: readonly string[]
  /** To be handed in again; it leaves with the last session that may be older. */
  cutoff?: Date | undefined
  /** Living sessions that the document denies, or may (issued about the cutoff): theirs to mint anew, ours to end. */
  sacrificed: readonly string[]
  /** The role has no room for another session. */
  refuseMints: boolean
}

/** How far one is willing to go. */
interface Stance {
  closing: boolean
  killed: ReadonlySet<string>
  cutoff: Date | undefined
  /** What the cutoff leaves. The stances of one cutoff share it, because to find it is most of the work. */
  cohorts: ReadonlyMap<string, Cohort>
}

/**
 * The kill list of one role: every ended session is denied, living ones only where they are `sacrificed`, and it fits. Takes the ladder's first
 * step that is enough, and never steps back from what an earlier document gave up while a session of it is left.
 *
 * @throws RangeError for a name that is none, and for a capacity too small even for the shortest denial
 */
export function killList(given: World): KillList {
  const world = validated(given)
  const before = asGiven(world)
  const closing: Stance = { ...before, closing: true }
  for (const stance of [before, closing]) {
    if (fits(world, stance)) return take(world, stance)
  }
  const stance = givingUp(world, closing) ?? cuttingOff(world, closing)
  return stance ? take(world, stance) : shut(world)
}

/** Step 4: as few cohorts as are enough, those first that save most, and of equals those in which fewest live. */
function givingUp(world: World, stance: Stance): Stance | undefined {
  const gain = (cohort: Cohort) => Math.min(cohort.denied.size, entriesByPattern(cohort)) - 1
  const order = [...stance.cohorts]
    .filter(([name, cohort]) => !stance.killed.has(name) && gain(cohort) > 0)
    .toSorted(([a, x], [b, y]) => gain(y) - gain(x) || x.survivors.size - y.survivors.size || (a < b ? -1 : 1))
    .map(([name]) => name)
  const without = (count: number): Stance => ({ ...stance, killed: new Set([...stance.killed, ...order.slice(0, count)]) })
  const enough = first(order.length, (count) => fits(world, without(count)))
  return enough === undefined ? undefined : without(enough)
}

/** Step 5: the earliest cutoff that is enough by itself. Where names of unknown age are left that do not fit, the latest, and cohorts after it. */
function cuttingOff(world: World, stance: Stance): Stance | undefined {
  const after = (moment: Date) => (Math.floor(moment.getTime() / 1_000) + 1) * 1_000
  const moments = [...new Set(world.denied.flatMap(({ latest }) => (latest ? [after(latest)] : [])))]
    .filter((moment) => moment > (world.cutoff?.getTime() ?? -Infinity))
    .toSorted((a, b) => a - b)
  const at = (index: number): Stance => {
    const cutoff = new Date(moments[index]!)
    return { ...stance, cutoff, cohorts: cohortsOf(world, cutoff) }
  }
  const last = moments.length - 1
  if (last < 0) return undefined
  const enough = first(last, (index) => fits(world, at(index)))
  return enough === undefined ? givingUp(world, at(last)) : at(enough)
}

/** Step 6: nothing else is short enough. */
function shut(world: World): KillList {
  const document = renderShut(world.base)
  if (document.length > world.capacity) throw new RangeError(`no denial fits into ${world.capacity} characters`)
  return {
    document,
    size: document.length,
    rung: 6,
    closeCohort: true,
    killed: [...new Set(world.killed)].toSorted(),
    cutoff: world.cutoff,
    sacrificed: namesOf(world.living),
    refuseMints: true,
  }
}

function take(world: World, stance: Stance): KillList {
  const denials = denialsOf(world, stance)
  const document = render(denials, world.base)
  const killed = denials.cohorts.filter((cohort) => stance.killed.has(cohort)).toSorted()
  const closeCohort = denials.cohorts.includes(world.open)
  const isSacrificed = (session: Session) => stance.killed.has(cohortOf(session.name)) || isBefore(session.earliest, stance.cutoff)
  return {
    document,
    size: document?.length ?? 0,
    rung: denials.cutoff ? 5 : killed.length > 0 ? 4 : closeCohort ? 2 : 1,
    closeCohort,
    killed,
    cutoff: denials.cutoff,
    sacrificed: namesOf(world.living.filter(isSacrificed)),
    refuseMints: false,
  }
}

function fits(world: World, stance: Stance): boolean {
  const size = render(denialsOf(world, stance), world.base)?.length ?? 0
  return size <= world.capacity
}

/** Every name and every pattern takes the same room, so that of a cohort's two forms the one with fewer entries is the shorter. */
function denialsOf(world: World, stance: Stance): Denials {
  const cohorts: string[] = []
  const survivors: string[] = []
  const names = [...world.canaries]
  for (const [name, cohort] of stance.cohorts) {
    if (stance.killed.has(name)) {
      cohorts.push(name)
    } else if ((stance.closing || name !== world.open) && entriesByPattern(cohort) < cohort.denied.size) {
      cohorts.push(name)
      survivors.push(...cohort.survivors)
    } else {
      names.push(...cohort.denied)
    }
  }
  const isOlder = ({ earliest }: Session) => isBefore(earliest, stance.cutoff)
  const cutoff = world.denied.some(isOlder) || world.living.some(isOlder) ? stance.cutoff : undefined
  return { cohorts, survivors, names, cutoff }
}

interface Cohort {
  denied: Set<string>
  survivors: Set<string>
}

function entriesByPattern({ survivors }: Cohort): number {
  return 1 + survivors.size
}

/** The cohorts of which a session is left that the cutoff does not surely deny. What it may deny is no survivor: its owner is told to leave it. */
function cohortsOf(world: World, cutoff: Date | undefined): Map<string, Cohort> {
  const cohorts = new Map<string, Cohort>()
  const cohort = (name: string) => {
    const key = cohortOf(name)
    const known = cohorts.get(key)
    if (known) return known
    const fresh: Cohort = { denied: new Set(), survivors: new Set() }
    cohorts.set(key, fresh)
    return fresh
  }
  const isLeft = ({ latest }: Session) => !(latest && isBefore(latest, cutoff))
  for (const { name } of world.denied.filter(isLeft)) cohort(name).denied.add(name)
  for (const { name, earliest } of world.living.filter(isLeft)) {
    const { survivors } = cohort(name)
    if (!isBefore(earliest, cutoff)) survivors.add(name)
  }
  return cohorts
}

function namesOf(sessions: readonly Session[]): string[] {
  return [...new Set(sessions.map(({ name }) => name))].toSorted()
}

function isBefore(moment: Date, cutoff: Date | undefined): boolean {
  return cutoff !== undefined && moment.getTime() < cutoff.getTime()
}

/**
 * The least index up to `last` that is enough, where more is never less: found in few looks, because each renders a whole document. Whatever it
 * answers has been looked at. Undefined where not even the last is.
 */
function first(last: number, isEnough: (index: number) => boolean): number | undefined {
  if (!isEnough(last)) return undefined
  let [low, high] = [0, last]
  while (low < high) {
    const middle = (low + high) >> 1
    if (isEnough(middle)) high = middle
    else low = middle + 1
  }
  return high
}

function asGiven(world: World): Stance {
  const { killed, cutoff } = world
  return { closing: false, killed: new Set(killed), cutoff, cohorts: cohortsOf(world, cutoff) }
}

/** With none among the living that is denied too: once, for each look at a stance goes through all of them. @throws RangeError */
function validated(world: World): World {
  const { open, killed, canaries, cutoff, denied, living } = world
  for (const cohort of [open, ...killed]) assertCohort(cohort)
  for (const { name } of [...denied, ...living]) assertSession(name)
  for (const canary of canaries) assertCanary(canary)
  if (cutoff && cutoff.getTime() % 1_000 !== 0) throw new RangeError('a cutoff is a whole second, as AWS compares it')
  const ended = new Set(denied.map(({ name }) => name))
  return { ...world, living: living.filter(({ name }) => !ended.has(name)) }
}
