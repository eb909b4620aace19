import { Command } from 'commander'
import { BrokerUnreachable, type HeldLease, MayflyProblem, type OpenTask } from '../client/client.ts'
import type { ClosedTask, TaskView } from '../http/contract.ts'
import { Unsuccessful } from './failure.ts'
import { type AskedGrants, durationOption, grantOption, grantsOf, pair, paramOption, some, waitOption } from './grants.ts'
import { hasEnded, leaseTable, outlivesLines } from './lease-lines.ts'
import { cursorOption, filterOf, limitOption, paged, timed } from './lists.ts'
import { counted, moment, paint, table, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'
import { orComplete } from './taken.ts'

interface OpenOptions extends AskedGrants {
  readonly kind: string
  readonly purpose?: string
  readonly duration?: string
  readonly label?: Record<string, string>
  readonly key?: string
}

/** `mayfly task …`: the API from a shell. */
export const taskCommand = (outputOf: OutputOf): Command =>
  new Command('task')
    .description('declare, look at and end tasks')
    .addCommand(openCommand(outputOf))
    .addCommand(showCommand(outputOf))
    .addCommand(listCommand(outputOf))
    .addCommand(completeCommand(outputOf))
    .addCommand(revokeCommand(outputOf))
    .addCommand(renewCommand(outputOf))

const openCommand = (outputOf: OutputOf): Command =>
  new Command('open')
    .description('declare a task and print its credentials: the only copy; `mayfly exec` keeps them off the screen')
    .requiredOption('--kind <name>', 'kind of task')
    .addOption(grantOption())
    .addOption(paramOption())
    .option('--purpose <text>', 'for people; never decides')
    .option('--label <name=value>', 'for people; may be repeated', pair)
    .addOption(durationOption('how long the task may last; the most that its kind allows, where absent'))
    .option('--key <key>', 'Idempotency-Key: the same key and declaration again heal a lost answer')
    .action(async (options: OpenOptions, command: Command) => {
      const { kind, purpose, duration, label, key } = options
      const declaration = { kind, ...some({ purpose, duration }), ...(label && { labels: label }), grants: grantsOf(options) }
      const output = outputOf(command)
      await printOpened(output, await connect().open(declaration, some({ key })).catch(tellKey(output)))
    })

/** Prints the only copy of the credentials. @throws the stream's error where nobody took it; the task is completed then */
async function printOpened(output: Output, task: OpenTask): Promise<void> {
  const leases = task.leases.map(revealed)
  const value = { task: task.task, task_token: task.token, decision: task.decision, leases, receipts: task.receipts }
  const forPeople = (): string =>
    [
      `${task.id} is open until ${task.task.deadline}, permitted by ${task.decision.policies.join(', ')} (${task.decision.id})`,
      ...leases.flatMap(({ id, grant, expires_at, credential, ...lease }) => [
        `${grant}  ${id}  until ${expires_at}`,
        ...outlivesLines(lease).map((line) => `  ${line}`),
        ...Object.entries(credential).flatMap(([name, text]) =>
          name === 'type' ? [] : [`  ${name}: ${typeof text === 'string' ? text : JSON.stringify(text)}`],
        ),
      ]),
      `task token: ${task.token}`,
      `complete it: mayfly task complete ${task.id}`,
    ].join('\n')
  await orComplete(task, () => output.handOver(value, forPeople))
}

/** Says with which key to ask again, where a task may be open whose answer was lost: nobody else knows the one that was made here. */
const tellKey =
  (output: Output) =>
  (error: unknown): never => {
    const isLost =
      (error instanceof BrokerUnreachable && !error.isLasting) || (error instanceof MayflyProblem && (error.retry === 'same' || error.status >= 500))
    if (isLost) output.note(`if this opened a task, the same command with --key ${error.idempotencyKey ?? ''} heals it`)
    throw error
  }

const showCommand = (outputOf: OutputOf): Command =>
  new Command('show')
    .description('a task with its leases and decisions; never a secret')
    .argument('<task>', 'task_…')
    .action(async (id: string, _: object, command: Command) => {
      const shown = await connect().showTask(id)
      const output = outputOf(command)
      output.result(shown, () =>
        [
          describeTask(output, shown.task),
          leaseTable(shown.leases),
          // Those of a denial permitted something of it too: `policy denials` says what denied.
          ...shown.decisions.map(({ id: decision, action, outcome, policies }) =>
            [decision, action, outcome, ...(outcome === 'permit' ? [policies.join(', ')] : [])].join('  '),
          ),
        ].join('\n'),
      )
    })

const listCommand = (outputOf: OutputOf): Command =>
  timed(new Command('list').description('tasks, newest first (operators and reviewers)'), 'open at some time')
    .option('--state <state>', 'open, closing, completed, failed, revoked, expired or denied')
    .option('--agent <name>', 'of this agent')
    .option('--owner <owner>', 'of agents of this owner')
    .option('--kind <name>', 'of this kind')
    .option('--never-completed', 'only those that end or ended otherwise: failed, revoked, expired')
    .addOption(limitOption())
    .addOption(cursorOption())
    .action(async ({ neverCompleted, ...filter }: Record<string, string>, command: Command) => {
      const page = await connect().listTasks({ ...filterOf(filter), ...(neverCompleted && { completed: false }) })
      outputOf(command).result(page, () => paged(taskTable(page.items), page))
    })

const completeCommand = (outputOf: OutputOf): Command =>
  new Command('complete')
    .description('end a task of your own; exit 0 only when every lease of it has ended')
    .argument('<task>', 'task_…')
    .addOption(waitOption())
    .action(async (id: string, { wait }: { wait: number }, command: Command) => {
      tellClosed(outputOf(command), await connect().completeTask(id, { wait }))
    })

const revokeCommand = (outputOf: OutputOf): Command =>
  new Command('revoke')
    .description('end any task (operators); exit 0 only when every lease of it has ended')
    .argument('<task>', 'task_…')
    .requiredOption('--reason <text>', 'stays in the ledger')
    .addOption(waitOption())
    .action(async (id: string, { reason, wait }: { reason: string; wait: number }, command: Command) => {
      tellClosed(outputOf(command), await connect().revokeTask(id, reason, wait))
    })

const renewCommand = (outputOf: OutputOf): Command =>
  new Command('renew')
    .description('give a task of your own a new deadline, counted from now, under a new decision')
    .argument('<task>', 'task_…')
    .addOption(durationOption('how long from now'))
    .action(async (id: string, { duration }: { duration?: string }, command: Command) => {
      const renewed = await connect().renewTask(id, some({ duration }))
      outputOf(command).result(renewed, () => `${id} is open until ${renewed.task.deadline} (${renewed.decision.id})`)
    })

/** Truth before comfort: what is not proven dead is named, and the exit status says so. */
function tellClosed(output: Output, closed: ClosedTask): void {
  output.result(closed, () => [describeTask(output, closed.task), leaseTable(closed.leases)].join('\n'))
  if (closed.ended) return
  const alive = closed.leases.filter((lease) => !hasEnded(lease))
  output.note(`not ended yet: ${alive.length} of ${counted(closed.leases.length, 'lease')}; the broker goes on: mayfly task show ${closed.task.id}`)
  throw new Unsuccessful()
}

function describeTask(output: Output, task: TaskView): string {
  const ended =
    task.cause === undefined
      ? `until ${task.deadline}`
      : `${task.cause}${task.ended_by === undefined ? '' : ` by ${task.ended_by}`} ${task.ended_at ?? ''}`
  return `${task.id}  ${colourOf(output, task.state)}  ${task.kind}  ${task.agent}  ${ended}`.trimEnd()
}

const taskTable = (tasks: readonly TaskView[]): string =>
  table(
    ['TASK', 'STATE', 'KIND', 'AGENT', 'OPENED', 'DEADLINE', 'CAUSE', 'BY', 'REASON'],
    tasks.map(({ id, state, kind, agent, opened_at, deadline, cause, ended_by, reason }) => [
      id,
      state,
      kind,
      agent,
      moment(opened_at),
      moment(deadline),
      cause,
      ended_by,
      reason,
    ]),
  )

const colourOf = (output: Output, state: string): string =>
  paint(output, state === 'open' ? 'green' : state === 'closing' ? 'yellow' : state === 'denied' || state === 'failed' ? 'red' : 'gray', state)

const revealed = ({ credential, ...lease }: HeldLease) => ({ ...lease, credential: credential.reveal() })
