/** A session as the kill list of its role needs it. */
export interface ListedSession {
  readonly name: string
  readonly denied: boolean
  /** Of the document that is known to name it; undefined where none does yet. */
  readonly generation: number | undefined
  /** By the store's clock: AWS did not issue it before this, nor, where `latest` is known, for a call that was announced after that. */
  readonly earliest: Date
  readonly latest: Date | undefined
}

/** A kill list that this holder alone may write, and all that it depends on, read in one moment. */
export interface HeldList {
  /** Chosen when the list was first needed: what nobody who writes another list can have written. 8 of hex. */
  readonly salt: string
  /** Of the last document that anybody meant to write; 0 before the first. */
  readonly generation: number
  /** Digest of that document; null where there was nothing to say, and no policy. */
  readonly digest: string | null
  /** Whether that document is known to have been written. If not, nobody knows whether it was, or still will be. */
  readonly written: boolean
  /** The last generation that was seen to be in force; 0 before the first. */
  readonly confirmed: number
  /** The cohort that names are given out in. */
  readonly open: string
  /** What earlier documents gave up. */
  readonly killed: readonly string[]
  readonly cutoff: Date | undefined
  /**
   * Without those whose end passed more than 120 s ago: AWS may be behind by so much, and no more. And without those that ended by themselves and that
   * nobody asked to deny: each would be worth a document, and its session policy denies it already.
   */
  readonly sessions: readonly ListedSession[]
  /** What is written is to be compared with what AWS has. */
  readonly checkDue: boolean
}

/** A document about to be written. */
export interface Intent {
  readonly generation: number
  readonly digest: string | null
  readonly killed: readonly string[]
  readonly cutoff: Date | undefined
  /** Step of the overflow ladder. At 6 the role takes no further session until a document of a lower step. */
  readonly rung: number
  /** Names of living sessions that it denies: their leases are ended in this commit, cause `limit`. */
  readonly sacrificed: readonly string[]
}

/**
 * The kill list of each role, kept where all brokers see it. A holder's claim runs out, so that one that hangs does not keep the others from ending
 * anything; what it still writes then is found and written over: see `disturbed`. Every verb is one commit. @throws BrokerError `store_unavailable`
 */
export interface KillLists {
  /** Roles with something to be written, confirmed or compared. */
  due(provider: string): Promise<readonly string[]>
  /** Says that every list that was written is to be compared at once: whoever asks may look elsewhere than those who wrote. */
  doubt(provider: string): Promise<void>
  /**
   * Takes the list for 30 s. A number: milliseconds after which to ask again, because another holder has it, or its last document was begun less
   * than `pause` milliseconds ago.
   */
  take(provider: string, role: string, holder: string, pause: number): Promise<HeldList | number>
  /** Closes the open cohort and opens another. Waits for names that are being taken, so that a list that is taken afterwards has them all. False: not the holder any more. */
  closeCohort(provider: string, role: string, holder: string): Promise<boolean>
  /** Says what is about to be written. False: not the holder any more, nothing may be written. */
  intend(provider: string, role: string, holder: string, intent: Intent): Promise<boolean>
  /** Says that the intended document was written, and which denied sessions it names. False: not the holder any more; see `disturbed`. */
  wrote(provider: string, role: string, holder: string, generation: number, denied: readonly string[]): Promise<boolean>
  /** Says that a generation was seen to be in force: every session that it or an earlier one denies is dead. Whoever saw it may say so. */
  confirm(provider: string, role: string, generation: number): Promise<void>
  /** Says that what was written was compared, and is as it should be; the next comparison is due in `next` milliseconds. */
  checked(provider: string, role: string, holder: string, next: number): Promise<void>
  /** Says that somebody else may have written over it: it is to be compared at once, by whoever holds it. */
  disturbed(provider: string, role: string): Promise<void>
  /** Lets the list go, for whoever waits. */
  release(provider: string, role: string, holder: string): Promise<void>
}
