import type { EntryId } from './ids.ts'

/** What whoever was answered can keep: which entry the ledger has written, and the one leaf of the log that it can come to. It says nothing of the entry by itself. */
export interface Receipt {
  readonly entry: EntryId
  readonly kind: string
  /** SHA-256 of the leaf (RFC 6962), base64, as `GET /ledger/log` has it. */
  readonly leafHash: string
}
