import { Command, Option } from 'commander'
import type { Client } from '../client/client.ts'
import { sizeOf, linesOf } from './ledger-lines.ts'
import { checkReceiptsCommand } from './ledger-receipts.ts'
import { verifyCommand } from './ledger-verify.ts'
import { lineText } from '../proof/lines.ts'
import { rotateCommand } from './ledger-rotate.ts'
import { counted, moment, plain, say, table, write } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'
import { cursorOption, filterOf, limitOption, paged, timed } from './lists.ts'

/** `mayfly ledger …`: the history, for reviewers. */
export const ledgerCommand = (outputOf: OutputOf): Command =>
  new Command('ledger')
    .description('the append-only history')
    .addCommand(listCommand(outputOf))
    .addCommand(exportCommand())
    .addCommand(verifyCommand(outputOf))
    .addCommand(checkReceiptsCommand(outputOf))
    .addCommand(rotateCommand(outputOf))

const filtered = (command: Command): Command =>
  timed(command, 'of a time')
    .option('--kind <kind>', 'such as lease.revoked')
    .option('--agent <name>', 'about this agent')
    .option('--task <task>', 'about this task')
    .option('--lease <lease>', 'about this lease')
    .option('--by <operator>', 'what this operator did: operator:ISSUER/SUBJECT')

const listCommand = (outputOf: OutputOf): Command =>
  filtered(new Command('list').description('entries, newest first (operators and reviewers)'))
    .addOption(limitOption())
    .addOption(cursorOption())
    .action(async (filter: Record<string, string>, command: Command) => {
      const page = await connect().listEntries(filterOf(filter))
      outputOf(command).result(page, () => {
        const rows = page.items.map(({ at, kind, agent, task, lease, body }) => [moment(at), kind, agent, lease ?? task, summary(body)])
        return paged(table(['AT', 'KIND', 'AGENT', 'ABOUT', 'FACT'], rows), page)
      })
    })

const exportCommand = (): Command =>
  filtered(
    new Command('export').description(
      'the whole log with its checkpoint and policies, for `ledger verify`; with a filter, or as CSV, the entries that fit, newest first',
    ),
  )
    .addOption(new Option('--format <format>', 'how').choices(['ndjson', 'csv']).default('ndjson'))
    .addHelpText(
      'after',
      `
Without a filter each line is a JSON object. The first has the signed checkpoint; then comes the log up to there, oldest first: each place with its number,
leaf_hash, entry and, of a decision, its answers; and each policy set before the first decision that rests on it. What is younger than a second or two is
not in it: it is signed later.
With a filter each line is an entry alone, newest first, up to now. A part of a history cannot be complete, so nothing of it can be verified.`,
    )
    .action(async ({ format, ...filter }: Record<string, string>) => {
      const client = connect()
      if (format === 'ndjson' && Object.keys(filter).length === 0) {
        return await exportLog(client)
      }
      const form = format === 'csv' ? 'text/csv' : 'application/x-ndjson'
      let cursor: string | undefined
      let first = true
      do {
        const page = await client.exportEntries(form, { ...filterOf(filter), limit: 500, cursor })
        // One header line for the whole file.
        await write(format === 'csv' && !first ? page.text.slice(page.text.indexOf('\n') + 1) : page.text)
        cursor = page.next
        first = false
      } while (cursor !== undefined)
    })

/** @throws Error where the broker gave less than its checkpoint is over: what was written must not pass for the whole */
async function exportLog(client: Client): Promise<void> {
  let size = 0
  let next = 0
  let last: string | undefined
  for await (const line of linesOf(client)) {
    if ('export' in line) size = sizeOf(line)
    else if ('number' in line) [next, last] = [line.number + 1, line.entry?.at]
    await write(lineText(line))
  }
  if (next < size) throw new Error(`the broker gave ${counted(next, 'entry', 'entries')} and signed ${size}: what was written was cut short`)
  say(`mayfly: up to entry ${next - 1}${last === undefined ? '' : ` of ${last}`}; what is younger than a second or two is not in it`)
}

const summary = (body: unknown): string => {
  const text = plain(JSON.stringify(body) ?? '')
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}
