import type { EntryId } from './ids.ts'

/** Names an entry that the ledger has written and the only log leaf that it can become. Callers keep it; it does not reveal the entry. */
export interface Receipt {
  readonly entry: EntryId
  readonly kind: string
  /** SHA-256 of the leaf (RFC 6962), base64, as `GET /ledger/log` has it. */
  readonly leafHash: string
}
