import { Command, Option } from 'commander'
import { describe } from '../base/errors.ts'
import type { Client } from '../client/client.ts'
import type { StopView } from '../http/contract.ts'
import { noteLost } from './failure.ts'
import { duration } from './grants.ts'
import { moment, plain, table } from './output.ts'
import type { OutputOf } from './program.ts'
import { askAboutUnknown, describeSelector, selecting, selectorOf, type SelectorOptions, sharedBy } from './selector.ts'
import { connect } from './session.ts'
import { cursorOption, limitOption, paged } from './lists.ts'

/** `mayfly issuing …`: keep something from being issued, and let it again. */
export const issuingCommand = (outputOf: OutputOf): Command =>
  new Command('issuing')
    .description('stop issuing, on every broker at once, and let it again; what lives goes on (see `mayfly revoke`)')
    .addCommand(
      selecting(new Command('stop').description('issue nothing of it any more (operators)'))
        .requiredOption('--reason <text>', 'stays in the ledger; who is stopped does not read it')
        .addOption(new Option('--for <duration>', 'how long at most, such as 8h').argParser(duration).makeOptionMandatory())
        .action(async ({ reason, for: lasts, ...options }: SelectorOptions & { reason: string; for: string }, command: Command) => {
          const output = outputOf(command)
          const asked = { selector: selectorOf(options), reason, duration: lasts }
          const stop = await connect().stopIssuing(asked).catch(noteLost(output, 'mayfly issuing stops --in-force'))
          output.result(stop, () => stopTable([stop]))
          for (const question of askAboutUnknown(stop.unknown)) output.note(question)
        }),
    )
    .addCommand(
      new Command('stops')
        .description('stops, newest first (operators and reviewers)')
        .option('--in-force', 'only those that keep something from being issued now')
        .addOption(limitOption())
        .addOption(cursorOption())
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
          const client = connect()
          const stop = await client.resumeIssuing(id, reason)
          const output = outputOf(command)
          const others = await othersInForce(client, stop).catch((error: unknown) => {
            output.note(`${unseen}: ${describe(error)}`)
          })
          output.result({ ...stop, still_stopped_by: others }, () => stopTable([stop]))
          for (const line of describeOthers(others ?? [])) output.note(line)
        }),
    )

/** A stop that is in force, and how much of what another one kept back it keeps back too. */
interface OtherStop extends Pick<StopView, 'id' | 'selector' | 'until'> {
  readonly keeps: 'all' | 'some'
}

/** Said where the answer is not known: the stop is lifted all the same. */
const unseen = 'whether another stop keeps it from being issued (mayfly issuing stops --in-force) could not be seen'

/** What whoever lifts a stop would otherwise believe to be issued again; those that keep back all of it first. */
async function othersInForce(client: Client, lifted: StopView): Promise<readonly OtherStop[]> {
  const others: OtherStop[] = []
  let cursor: string | undefined
  do {
    const page = await client.listStops({ in_force: true, limit: 500, cursor })
    for (const { id, selector, until } of page.items) {
      const keeps = sharedBy(lifted.selector, selector)
      if (id !== lifted.id && keeps !== 'nothing') others.push({ id, selector, until, keeps })
    }
    cursor = page.next ?? undefined
  } while (cursor !== undefined)
  return others.toSorted((one, other) => one.keeps.localeCompare(other.keeps))
}

/** Lines; more of them nobody reads. */
const mostOthers = 10

const describeOthers = (others: readonly OtherStop[]): readonly string[] => [
  ...others.slice(0, mostOthers).map(({ id, selector, until, keeps }) => {
    const still = keeps === 'all' ? 'STILL STOPPED: all of it is' : 'perhaps still stopped: some of it may be'
    return `${still} kept from being issued by ${id} (${plain(describeSelector(selector))}) until ${moment(until) || 'it is lifted'}`
  }),
  ...(others.length > mostOthers ? [`and ${others.length - mostOthers} more: mayfly issuing stops --in-force`] : []),
]

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
