import { sql } from 'drizzle-orm'
import { BrokerError } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, json } from './entries.ts'

/**
 * Keeps a policy set under its digest, and says in the history that it is in force.
 *
 * @throws BrokerError `conflict` where the archive has another document under this digest: what such a set decides could never be replayed
 */
export async function archivePolicySet(ledger: Ledger, digest: string, document: Json): Promise<void> {
  // Twice: what another broker archives at the same moment only the next statement sees.
  for (let tries = 0; tries < 2; tries++) {
    const told = await ledger.run(sql`
      with given as (select ${digest}::text as digest, ${json(document)} as document),
      kept as (insert into policy_sets (digest, document) select digest, document from given on conflict do nothing returning digest)
      ${entryColumns}
      select 'policy.activated', null, null, null, null, ${json({ policy_digest: digest })}
      where exists (select from kept) or exists (select from policy_sets join given using (digest, document))
      returning id`)
    if (told.length > 0) return
  }
  throw new BrokerError(
    'conflict',
    `The archive has another policy set under ${digest}, which no broker put there: change a policy, so that the set has a digest of its own`,
  )
}

/** The archived policy set of a digest: what `restorePolicySet` reads. */
export async function policySetOf(ledger: Ledger, digest: string): Promise<Json | undefined> {
  const [row] = await ledger.run<{ document: Json }>(sql`select document from policy_sets where digest = ${digest}`, 'later')
  return row?.document
}
