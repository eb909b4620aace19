import { sql } from 'drizzle-orm'
import type { Json } from '../base/json.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, type EntryKind, json } from './entries.ts'

/** Keeps a policy set under its digest, and says in the history that it is in force. */
export async function archivePolicySet(ledger: Ledger, digest: string, document: Json): Promise<void> {
  await ledger.run(sql`
    with kept as (insert into policy_sets (digest, document) values (${digest}, ${json(document)}) on conflict do nothing)
    ${entryColumns} values (${'policy.activated' satisfies EntryKind}, null, null, null, null, ${json({ policy_digest: digest })})`)
}

/** The archived policy set of a digest: what `restorePolicySet` reads. */
export async function policySetOf(ledger: Ledger, digest: string): Promise<Json | undefined> {
  const [row] = await ledger.run<{ document: Json }>(sql`select document from policy_sets where digest = ${digest}`, 'later')
  return row?.document
}
