import { Command } from 'commander'
import { Unsuccessful } from './failure.ts'
import { waitOption } from './grants.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'
import { heldTable, leaseTable, outlivesLines } from './lease-lines.ts'
import { cursorOption, filterOf, limitOption, paged, timed } from './lists.ts'

/** `mayfly lease …`: one credential each. */
export const leaseCommand = (outputOf: OutputOf): Command =>
  new Command('lease')
    .description('look at and end single credentials')
    .addCommand(listCommand(outputOf))
    .addCommand(showCommand(outputOf))
    .addCommand(refreshCommand(outputOf))
    .addCommand(revokeCommand(outputOf))

const listCommand = (outputOf: OutputOf): Command =>
  timed(
    new Command('list').description('leases, newest first (operators and reviewers); `--alive` shows what is not proven dead'),
    'held at some time',
  )
    .option('--state <state>', 'reserved, active, revoking, lapsing, revoked, expired or failed')
    .option('--agent <name>', 'of this agent')
    .option('--owner <owner>', 'of agents of this owner')
    .option('--grant <name>', 'of this grant')
    .option('--provider <name>', 'of this provider')
    .option('--task <task>', 'of this task')
    .option('--stuck [boolean]', 'only those whose revocation has failed for too long; false: all others')
    .option('--standing [boolean]', 'only those of secrets that live on when the lease ends; false: all others')
    .option('--alive', 'only those that have not ended, be they active, revoking or lapsing')
    .option('--ended-late <duration>', 'only those that ended so long after their end was decided or due, such as 10s')
    .option('--outlived-task <duration>', 'only those that have not ended so long after their task, such as 1m: there must be none')
    .addOption(limitOption())
    .addOption(cursorOption())
    .action(async (filter: Record<string, string | boolean>, command: Command) => {
      const page = await connect().listLeases(filterOf(filter))
      const aboutTime = [filter['from'], filter['to'], filter['endedLate'], filter['outlivedTask']].some((given) => given !== undefined)
      outputOf(command).result(page, () => paged(aboutTime ? heldTable(page.items) : leaseTable(page.items, { whose: true }), page))
    })

const showCommand = (outputOf: OutputOf): Command =>
  new Command('show')
    .description('one lease; never its secret')
    .argument('<lease>', 'lease_…')
    .action(async (id: string, _: object, command: Command) => {
      const lease = await connect().showLease(id)
      outputOf(command).result(lease, () => [leaseTable([lease]), ...outlivesLines(lease)].join('\n'))
    })

const refreshCommand = (outputOf: OutputOf): Command =>
  new Command('refresh')
    .description('print a fresh credential of a lease of your own, where its provider has them')
    .argument('<lease>', 'lease_…')
    .action(async (id: string, _: object, command: Command) => {
      const { lease, ...refreshed } = await connect().refreshLease(id)
      const credential = lease.credential.reveal()
      outputOf(command).result(
        { ...refreshed, lease: { ...lease, credential } },
        () => `${lease.id} until ${lease.expires_at}\n${JSON.stringify(credential)}`,
      )
    })

const revokeCommand = (outputOf: OutputOf): Command =>
  new Command('revoke')
    .description('end one lease; its task goes on; exit 0 only when it has ended')
    .argument('<lease>', 'lease_…')
    .option('--reason <text>', 'stays in the ledger')
    .addOption(waitOption())
    .action(async (id: string, { reason, wait }: { reason?: string; wait: number }, command: Command) => {
      const closed = await connect().revokeLease(id, reason, wait)
      outputOf(command).result(closed, () => leaseTable([closed.lease]))
      if (!closed.ended) throw new Unsuccessful()
    })
