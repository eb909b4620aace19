import { ProviderError } from '../../provider.ts'
import { nameOf } from '../answers.ts'
import { arnOfPolicy } from '../arn.ts'
import { policyText, room, sizeOf, type Statement } from '../policy.ts'
import { type AwsSettings, bareName, type KillListSettings, listPolicyOf } from '../settings.ts'
import type { Iam } from './iam.ts'

/** What carries the kill list of one role. Every verb throws ProviderError; where `minted` is `maybe`, a write may still land. */
export interface Carrier {
  /** For people, such as `boundary mayfly-kill-list-invoices`. */
  readonly label: string
  /** What it says beside the denials. */
  readonly base: readonly Statement[]
  /** Characters for the whole document. */
  capacity(signal: AbortSignal): Promise<number>
  /** What AWS has; undefined where that is nothing but the base. White space, in which nothing is said, is left out. */
  read(signal: AbortSignal): Promise<string | undefined>
  /** Undefined: nobody is denied. */
  write(document: string | undefined, signal: AbortSignal): Promise<void>
  /**
   * Clears away what was written over, so that the next write finds room. Asked for once after a write, and while no other is under way; one that is left out,
   * or fails, is made good by the next.
   */
  tidy(signal: AbortSignal): Promise<void>
  /** Whether the role heeds it; undefined where that may not be read. */
  isAttached(signal: AbortSignal): Promise<boolean | undefined>
}

export function createCarrier(iam: Iam, settings: AwsSettings, killList: KillListSettings, role: string): Carrier {
  const bare = bareName(role)
  const policy = listPolicyOf(killList, role)
  return killList.carrier === 'boundary'
    ? boundaryCarrier(iam, arnOfPolicy(settings, policy), policy, bare, killList.capacity)
    : inlineCarrier(iam, policy, bare, killList.capacity)
}

/** A boundary says what is allowed at most: everything that the list does not deny. */
const everythingAllowed: readonly Statement[] = [{ Effect: 'Allow', Action: '*', Resource: '*' }]

function boundaryCarrier(iam: Iam, arn: string, policy: string, role: string, capacity: number = room.boundary): Carrier {
  const nobody = policyText(everythingAllowed)
  /** The version that this broker wrote last, and the one beside which it left no other. Undefined: there may be any. */
  let latest: string | undefined
  let alone: string | undefined

  return {
    label: `boundary ${policy}`,
    base: everythingAllowed,
    capacity: async () => Math.min(capacity, room.boundary),
    async read(signal) {
      const text = minified(await iam.readPolicy(arn, signal))
      return text === nobody ? undefined : text
    },
    async write(document = nobody, signal) {
      // What the last write left was not cleared away.
      if (latest !== alone) alone = undefined
      try {
        latest = await iam.createVersion(arn, document, signal)
      } catch (error) {
        // There may be a version that nobody knows of, or there are five.
        alone = undefined
        if (nameOf(error) !== 'LimitExceeded') throw error
        await iam.deleteOldVersions(arn, signal)
        latest = await iam.createVersion(arn, document, signal)
      }
    },
    async tidy(signal) {
      // It may be written meanwhile.
      const written = latest
      // Without asking what there is, as a rule: that would be one more request for each document.
      await (alone === undefined ? iam.deleteOldVersions(arn, signal) : iam.deleteVersion(arn, alone, signal))
      alone = written
    },
    isAttached: (signal) => unlessForbidden(async () => (await iam.boundaryOf(role, signal)) === arn),
  }
}

function inlineCarrier(iam: Iam, policy: string, role: string, capacity: number | undefined): Carrier {
  /** What the role's other policies take of the room that all have together. Read once, and again when the room turned out to be less. */
  let taken: number | undefined

  async function othersTake(signal: AbortSignal): Promise<number> {
    let sum = 0
    for (const name of await iam.inlinePolicies(role, signal)) {
      if (name !== policy) sum += sizeOf((await iam.readInline(role, name, signal)) ?? '')
    }
    return sum
  }
  function unlessCapacityIsGiven(error: unknown): number {
    if (nameOf(error) !== 'AccessDenied') throw error
    if (capacity !== undefined) return 0
    const way = 'let the broker list and read the inline policies of the role, or say in kill_list.capacity how much of their room it has'
    throw new ProviderError('refused', `nobody knows how long the kill list may be: ${way}`, 'no', { cause: error })
  }
  return {
    label: `inline policy ${policy}`,
    base: [],
    async capacity(signal) {
      taken ??= await othersTake(signal).catch(unlessCapacityIsGiven)
      return Math.min(capacity ?? room.inline, room.inline - taken)
    },
    async read(signal) {
      // Whoever compares is in no hurry: the others may have changed.
      taken = undefined
      const text = await iam.readInline(role, policy, signal)
      return text === undefined ? undefined : minified(text)
    },
    async write(document, signal) {
      if (document === undefined) return await iam.deleteInline(role, policy, signal)
      try {
        await iam.writeInline(role, policy, document, signal)
      } catch (error) {
        if (nameOf(error) === 'LimitExceeded') taken = undefined
        throw error
      }
    },
    tidy: async () => {},
    isAttached: async () => true,
  }
}

/** The same JSON without white space between its parts. What is no JSON stays what it is, and like no document of ours. */
function minified(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text))
  } catch {
    return text
  }
}

async function unlessForbidden(look: () => Promise<boolean>): Promise<boolean | undefined> {
  try {
    return await look()
  } catch (error) {
    if (nameOf(error) === 'AccessDenied') return undefined
    throw error
  }
}
