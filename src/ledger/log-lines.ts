import { sql } from 'drizzle-orm'
import type { Json } from '../base/json.ts'
import type { LogLine } from '../proof/lines.ts'
import type { Ledger } from './connect.ts'
import { exported, type ExportedRow, fieldsOfEntry } from './entries.ts'

interface LineRow {
  readonly number: number
  readonly id: string
  readonly hash: string
  readonly entry: ExportedRow | null
  readonly answers: readonly Json[] | null
  readonly note: string | null
  readonly stray: string | null
}

/**
 * Up to `limit` lines of the log from the place `start` on, with all that a reader needs to judge them: what the log has as each leaf, the entry that the
 * history has there, the answers of a decision, and every checkpoint that was signed over it. A place whose entry is gone says so, and the reading
 * goes on. What the history has right before an entry, and the log nowhere, stands in that entry's line.
 */
export async function readLogLines(ledger: Ledger, start: number, limit: number): Promise<readonly LogLine[]> {
  const rows = await ledger.run<LineRow>(
    sql`
    select leaf.index::double precision as number, leaf.entry_id as id, encode(leaf.hash, 'base64') as hash,
      case when entry.id is not null then ${exported(sql`entry`)} end as entry,
      (select answers from decisions where decisions.id = entry.decision_id and entry.kind = 'decision.made') as answers, checkpoint.note,
      (select before.id from (
        select id from entries where (entries.xid, entries.id) < (entry.xid, entry.id) order by entries.xid desc, entries.id desc limit 1
      ) as before where (select index from leaves where entry_id = before.id) is null) as stray
    from (select * from leaves where index >= ${start}::bigint order by index limit ${limit}) as leaf
      left join entries as entry on entry.id = leaf.entry_id
      left join checkpoints as checkpoint on checkpoint.size = leaf.index + 1
    order by leaf.index`,
    'later',
  )
  return rows.map(({ number, id, hash, entry, answers, note, stray }) => ({
    number,
    leaf_hash: hash,
    ...(entry === null ? { missing: id } : { entry: fieldsOfEntry(entry) }),
    ...(answers !== null && { answers }),
    ...(note !== null && { checkpoint: note }),
    ...(stray !== null && { stray }),
  }))
}
