import type postgres from 'postgres'
import type { Plan } from '../../src/ledger/connect.ts'
import { planByKey } from '../../src/ledger/postgres.ts'

/** What one plan of a statement really did. */
export interface Examined {
  /** Whose statement it is. */
  readonly verb: string
  readonly text: string
  readonly params: readonly unknown[]
  /** Made with the values of its parameters known, or without, as Postgres may choose for a statement whose plan it keeps. */
  readonly plan: 'custom' | 'generic'
  /** Tables that it read from end to end. */
  readonly scans: readonly string[]
  /** Of 8 KiB, in tables and indexes. */
  readonly pages: number
  /** Most rows of a table that one step of it read and had no use for. */
  readonly vain: number
}

/** Runs statements to see what they do, and takes back whatever they did. */
export interface Examiner {
  readonly found: readonly Examined[]
  examine(verb: string, text: string, params: readonly unknown[], plan: Plan | undefined): Promise<void>
}

interface Node {
  readonly 'Node Type': string
  readonly 'Relation Name'?: string
  /** 0 where nothing was asked of it. */
  readonly 'Actual Loops': number
  /** Of one loop. */
  readonly 'Rows Removed by Filter'?: number
  readonly Plans?: readonly Node[]
  readonly 'Shared Hit Blocks': number
  readonly 'Shared Read Blocks': number
}

export function createExaminer(owner: postgres.Sql): Examiner {
  const found: Examined[] = []
  let turn = Promise.resolve()

  async function explain(plan: Examined['plan'], text: string, params: readonly unknown[]): Promise<Node> {
    const session = await owner.reserve()
    try {
      const settings = Object.entries({ plan_cache_mode: `force_${plan}_plan`, ...planByKey }).map(([name, value]) => `set local ${name} = ${value}`)
      await session.unsafe(['begin', ...settings].join('; '))
      await session.unsafe(`prepare examined as ${text}`)
      const values = params.length > 0 ? `(${params.map(literal).join()})` : ''
      const [row] = await session.unsafe(`explain (analyze, buffers, timing off, format json) execute examined${values}`)
      return (row!['QUERY PLAN'] as [{ Plan: Node }])[0].Plan
    } finally {
      await session.unsafe('rollback; deallocate all')
      session.release()
    }
  }

  async function examine(verb: string, text: string, params: readonly unknown[], kept: Plan | undefined): Promise<void> {
    for (const plan of kept === 'fresh' ? (['custom'] as const) : (['custom', 'generic'] as const)) {
      const top = await explain(plan, text, params)
      found.push({ verb, text, params, plan, scans: scansOf(top), pages: top['Shared Hit Blocks'] + top['Shared Read Blocks'], vain: vainOf(top) })
    }
  }

  return {
    found,
    async examine(verb, text, params, plan) {
      // One after the other: a statement that is taken back may hold what the next one wants.
      turn = turn.then(() => examine(verb, text, params, plan))
      await turn
    },
  }
}

function vainOf(node: Node): number {
  const removed = node['Relation Name'] === undefined ? 0 : (node['Rows Removed by Filter'] ?? 0) * node['Actual Loops']
  return Math.max(removed, ...(node.Plans ?? []).map(vainOf))
}

/** Text, a number, a boolean or null: what a parameter of the ledger may be. */
const literal = (value: unknown): string => (typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : JSON.stringify(value))

/** Small by nature: a row an agent, a row a policy set, a row for what an operator did to many. */
const small = new Set(['agents', 'policy_sets', 'revocations', 'stops'])

function scansOf(node: Node): string[] {
  const below = (node.Plans ?? []).flatMap(scansOf)
  const table = node['Relation Name']
  const isScan = node['Node Type'] === 'Seq Scan' && node['Actual Loops'] > 0
  return isScan && table !== undefined && !small.has(table) ? [table, ...below] : below
}
