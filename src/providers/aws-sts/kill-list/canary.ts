import { ageOf, type Clock } from '../../../base/time.ts'
import { ProviderError } from '../../provider.ts'
import { isOver } from '../answers.ts'
import type { Probe, Probed, Sts } from '../client.ts'
import { policyText } from '../policy.ts'
import { sourceIdentityOf } from '../session.ts'

/**
 * Sessions of one role that exist to be denied: what AWS tells them is what it would tell any other that the same document denies. Their names have the
 * salt of the list in the store, so that no document of another store, or of this one before it was restored, can have denied them already.
 */
export interface Canary {
  /** Assumes the session of a generation, so that it is there when that has been written. */
  prepare(generation: number, salt: string, signal: AbortSignal): Promise<void>
  /**
   * Whether the document of this generation, or a later one that lists its canary, is in force: its canary is denied, and a session that is on no list
   * is not. The second is what makes it proof: what denies both is another policy, or the role was shut or cut off before.
   *
   * @param shut the document denies the role as a whole, so that there is nobody to compare with: its canary has to be denied in so many words
   * @throws ProviderError where nothing was learned
   */
  isInForce(generation: number, salt: string, shut: boolean, signal: AbortSignal): Promise<boolean>
  /** Lets go of the canaries of generations that nobody will ask about any more. */
  forget(upTo: number): void
}

/** Generations whose canaries a document lists: its own and those before it, so that one that was written over within seconds can still be seen in force. */
const listed = 8

/** The canaries of a document. At 1.2 s from one to the next each is denied for 9.6 s at least, which is longer than two looks are apart. */
export const canariesOf = (generation: number, salt: string): string[] =>
  Array.from({ length: Math.min(listed, generation) }, (_, back) => nameOf(generation - back, salt))

const nameOf = (generation: number, salt: string): string => `@${generation}-${salt}`
/** On no list: generations begin at 1. */
const control = 0

/** Seconds that a session lives at least (STS API reference, AssumeRole), and for how many milliseconds of them it is used. */
const duration = 900
const usable = 800_000

/** It need not do more than ask, and what it asks is harmless: to be told what a message says that is none. */
const policy = policyText([{ Effect: 'Allow', Action: 'sts:DecodeAuthorizationMessage', Resource: '*' }])

const severity: Readonly<Record<Probed, number>> = { allowed: 0, refused: 1, denied: 2 }

/** @param roleArn of the role whose kill list is watched */
export function createCanary(sts: Sts, roleArn: string, clock: Clock): Canary {
  interface Bird {
    readonly probe: Promise<Probe>
    readonly bornAt: number
  }
  const birds = new Map<number, Bird>()
  let salted = ''

  async function bird(generation: number, signal: AbortSignal): Promise<Probe> {
    const known = birds.get(generation)
    if (known && ageOf(known.bornAt, clock) < usable) return await known.probe
    // All of them: the control has to be the oldest, for a cutoff that spares it then spares every canary.
    if (generation === control) birds.clear()
    const assumption = { roleArn, sessionName: nameOf(generation, salted), sourceIdentity: sourceIdentityOf('mayfly kill list'), policy, duration }
    const born: Bird = { probe: sts.assumeRole(assumption, signal).then((session) => sts.probeOf(session)), bornAt: clock() }
    birds.set(generation, born)
    born.probe.catch(() => birds.get(generation) === born && birds.delete(generation))
    return await born.probe
  }

  async function hatch(generation: number, salt: string, signal: AbortSignal) {
    if (salt !== salted) birds.clear()
    salted = salt
    const spared = await bird(control, signal)
    return { spared, canary: await bird(generation, signal) }
  }

  return {
    prepare: async (generation, salt, signal) => void (await hatch(generation, salt, signal)),

    async isInForce(generation, salt, shut, signal) {
      try {
        const { spared, canary } = await hatch(generation, salt, signal)
        const verdict = await canary(signal)
        // With nobody to compare with, AWS has to name a deny: a role without the right to ask is refused before anything is written, too.
        if (shut) return verdict === 'denied'
        if (verdict === 'allowed') return false
        const compared = await spared(signal)
        if (severity[verdict] > severity[compared]) return true
        // Only a younger control can be spared again by a cutoff.
        if (compared === 'denied') birds.clear()
        return false
      } catch (error) {
        // A session that AWS takes for ended, or does not know any more.
        if (error instanceof ProviderError && isOver(error)) birds.clear()
        throw error
      }
    },

    forget(upTo) {
      for (const generation of birds.keys()) if (generation !== control && generation <= upTo) birds.delete(generation)
    },
  }
}
