/** What is wrong with a ledger, and where. */
export interface Fault {
  /** The number of the entry in the log, from 0. */
  readonly number?: number | undefined
  /** Its id, where it is known. */
  readonly id?: string | undefined
  readonly message: string
}
