import { createInterface } from 'node:readline/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { delay, stopwatch } from '../base/time.ts'
import type { Client } from '../client/client.ts'
import type { RevocationPlan, RevocationView, Selector } from '../http/contract.ts'
import { noteLost, Unsuccessful, UsageError } from './failure.ts'
import { duration, seconds } from './grants.ts'
import { moment, plain, table, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { askAboutUnknown, describeSelector, selecting, selectorOf, type SelectorOptions } from './selector.ts'
import { connect } from './session.ts'
import { cursorOption, filterOf, limitOption, paged } from './lists.ts'

interface RevokeOptions extends SelectorOptions {
  readonly reason?: string
  readonly dryRun?: boolean
  readonly yes?: number
  readonly stopIssuing?: string
  readonly wait: number
}

/** `mayfly revoke`: many at once. Says first what would end, asks, and shows how it ends. */
export const revokeCommand = (outputOf: OutputOf): Command =>
  selecting(new Command('revoke').description('end many tasks or leases at once (operators); exit 0 only when the last of them is dead'))
    .option('--reason <text>', 'stays in the ledger')
    .option('--dry-run', 'only say what would end')
    .addOption(new Option('--yes <count>', 'do not ask; nothing happens where there is more to end than that').argParser(count))
    .addOption(new Option('--stop-issuing <duration>', 'issue nothing of it any more, for so long or until lifted').argParser(duration))
    .addOption(new Option('--wait <seconds>', 'how long to watch it').argParser(seconds(3_600)).default(300))
    .action(async (options: RevokeOptions, command: Command) => {
      const output = outputOf(command)
      const selector = selectorOf(options)
      const client = connect()
      const plan = await client.planRevocation(selector)
      for (const question of askAboutUnknown(plan.unknown)) output.note(question)
      if (options.dryRun === true) return output.result(plan, () => describePlan(selector, plan))
      const { reason, yes, stopIssuing } = options
      if (reason === undefined) throw new UsageError('say why: --reason stays in the ledger')
      output.note(describePlan(selector, plan))
      const confirm = yes ?? (await askFor(plan.confirm))
      const stopping = stopIssuing === undefined ? {} : { stop_issuing: stopIssuing }
      const look = `mayfly revocations list${stopIssuing === undefined ? '' : ', mayfly issuing stops --in-force'}`
      const started = await client.startRevocation({ selector, reason, confirm, ...stopping }).catch(noteLost(output, look))
      if (started.stop)
        output.note(`nothing of it is issued any more (${started.stop}); let it again: mayfly issuing resume ${started.stop} --reason …`)
      const last = await watch(client, started, options.wait, output).catch((error: unknown) => {
        output.note(`it was started, and the brokers go on: mayfly revocations show ${started.id}`)
        // A program that was told of the failure alone would start another one, and leave the stop of this one in force.
        if (output.json) output.result(started, () => '')
        throw error
      })
      output.result({ ...last, stop: started.stop, receipts: started.receipts }, () => describeRevocation(last))
      if (last.state !== 'ended') throw new Unsuccessful()
    })

function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('must be the count of a dry run')
  return Number(text)
}

/** @throws UsageError where nobody is there to type it, or typed something else, and where the broker gave nothing to type */
async function askFor(phrase: string | undefined): Promise<string> {
  if (phrase === undefined) throw new UsageError('this broker says nothing that could be typed to confirm: run it with --yes COUNT')
  if (!process.stdin.isTTY) throw new UsageError('nobody is there to confirm: run it with --dry-run, then with --yes COUNT')
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  // Who ends the terminal, or interrupts, has not confirmed.
  const typed = await terminal.question(`To go on, type: ${plain(phrase)}\n> `).catch(() => '')
  terminal.close()
  if (typed.trim() !== phrase) throw new UsageError('not confirmed; nothing was changed')
  return phrase
}

async function watch(client: Client, started: RevocationView, longest: number, output: Output): Promise<RevocationView> {
  const elapsed = stopwatch()
  let last = started
  for (let shown = ''; last.state !== 'ended';) {
    if (elapsed() > longest * 1_000) {
      output.note(`not all of it is dead yet; the brokers go on: mayfly revocations show ${last.id}`)
      return last
    }
    await delay(500)
    last = await client.showRevocation(last.id)
    const now = describeRevocation(last)
    // The end is the result.
    if (now !== shown && last.state !== 'ended') output.note(now)
    shown = now
  }
  return last
}

function describePlan({ grant, provider }: Selector, { tasks, leases, count: counted, ending_already: others }: RevocationPlan): string {
  const held = leases.reduce((sum, { count: some }) => sum + some, 0)
  const goOn = grant !== undefined || provider !== undefined
  return [
    `would end: ${goOn ? `leases ${held} of tasks ${tasks}, which go on` : `tasks ${tasks}, leases ${held}`} (count ${counted})`,
    ...(leases.length === 0
      ? []
      : [
          table(
            ['PROVIDER', 'HOW', 'LEASES'],
            leases.map(({ provider, revocation, count: some }) => [provider, revocation, String(some)]),
          ),
        ]),
    ...(others ? [`${othersOf(others)}: it waits for them too`] : []),
  ].join('\n')
}

/** A broker of an older version counts none. */
const othersOf = (others: number): string =>
  `${others} more ${others === 1 ? 'was' : 'were'} ending already and ${others === 1 ? 'is' : 'are'} not proven dead`

const states = (counts: Readonly<Record<string, number | undefined>> = {}): string =>
  Object.entries(counts)
    .map(([state, some]) => `${some} ${state}`)
    .join(', ') || 'none'

const describeRevocation = ({ id, state, tasks, leases, stuck, ending_already: others }: RevocationView): string =>
  [
    `${id}  ${state}  tasks: ${states(tasks)}  leases: ${states(leases)}`,
    ...(others ? [othersOf(others)] : []),
    ...(stuck ? [`STUCK: ${stuck} (mayfly lease list --stuck)`] : []),
  ].join('  ')

/** `mayfly revocations …`: how far those are that were started. */
export const revocationsCommand = (outputOf: OutputOf): Command =>
  new Command('revocations')
    .description('revocations of many, and how far they are (operators and reviewers)')
    .addCommand(
      new Command('list')
        .description('newest first')
        .option('--ended <boolean>', 'false: those of which something is still alive')
        .addOption(limitOption())
        .addOption(cursorOption())
        .action(async (filter: Record<string, string>, command: Command) => {
          const page = await connect().listRevocations(filterOf(filter))
          outputOf(command).result(page, () =>
            paged(
              table(
                ['REVOCATION', 'STATE', 'STARTED', 'WHAT', 'BY', 'REASON'],
                page.items.map(({ id, state, started_at, selector, by, reason }) => [
                  id,
                  state,
                  moment(started_at),
                  describeSelector(selector),
                  by,
                  reason,
                ]),
              ),
              page,
            ),
          )
        }),
    )
    .addCommand(
      new Command('show')
        .description('how far one is')
        .argument('<revocation>', 'rev_…')
        .action(async (id: string, _: object, command: Command) => {
          const shown = await connect().showRevocation(id)
          outputOf(command).result(shown, () => describeRevocation(shown))
        }),
    )
