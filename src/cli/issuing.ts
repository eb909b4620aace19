import { Command, Option } from 'commander'
import type { StopView } from '../http/contract.ts'
import { duration } from './grants.ts'
import { moment, table } from './output.ts'
import type { OutputOf } from './program.ts'
import { askAboutUnknown, describeSelector, selecting, selectorOf, type SelectorOptions } from './selector.ts'
import { connect } from './session.ts'
import { paged } from './task.ts'

/** `mayfly issuing …`: keep something from being issued, and let it again. */
export const issuingCommand = (outputOf: OutputOf): Command =>
  new Command('issuing')
    .description('stop issuing, on every broker at once, and let it again; what lives goes on (see `mayfly revoke`)')
    .addCommand(
      selecting(new Command('stop').description('issue nothing of it any more (operators)'))
        .requiredOption('--reason <text>', 'stays in the ledger; who is stopped does not read it')
        .addOption(new Option('--for <duration>', 'how long at most, such as 8h').argParser(duration).makeOptionMandatory())
        .action(async ({ reason, for: lasts, ...options }: SelectorOptions & { reason: string; for: string }, command: Command) => {
          const stop = await connect().stopIssuing({ selector: selectorOf(options), reason, duration: lasts })
          const output = outputOf(command)
          output.result(stop, () => stopTable([stop]))
          for (const question of askAboutUnknown(stop.unknown)) output.note(question)
        }),
    )
    .addCommand(
      new Command('stops')
        .description('stops, newest first (operators and reviewers)')
        .option('--in-force', 'only those that keep something from being issued now')
        .option('--limit <count>', 'at most', '50')
        .option('--cursor <cursor>', 'from the page before')
        .action(async ({ inForce, limit, cursor }: { inForce?: boolean; limit: string; cursor?: string }, command: Command) => {
          const page = await connect().listStops({ limit, cursor, in_force: inForce })
          outputOf(command).result(page, () => paged(stopTable(page.items), page))
        }),
    )
    .addCommand(
      new Command('resume')
        .description('let what was stopped be issued again (operators)')
        .argument('<stop>', 'stop_…')
        .requiredOption('--reason <text>', 'stays in the ledger')
        .action(async (id: string, { reason }: { reason: string }, command: Command) => {
          const stop = await connect().resumeIssuing(id, reason)
          outputOf(command).result(stop, () => stopTable([stop]))
        }),
    )

const stopTable = (stops: readonly StopView[]): string =>
  table(
    ['STOP', 'WHAT', 'SINCE', 'UNTIL', 'BY', 'REASON', 'LIFTED'],
    stops.map(({ id, selector, began_at, until, by, reason, lifted_at, lifted_by, lift_reason }) => [
      id,
      describeSelector(selector),
      moment(began_at),
      moment(until),
      by,
      reason,
      lifted_at && `${moment(lifted_at)} by ${lifted_by}: ${lift_reason}`,
    ]),
  )
