import { Command } from 'commander'
import { Unsuccessful } from './failure.ts'
import { waitOption } from './grants.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'
import { filterOf, leaseTable, outlivesLines } from './task.ts'

/** `mayfly lease …`: one credential each. */
export const leaseCommand = (outputOf: OutputOf): Command =>
  new Command('lease')
    .description('look at and end single credentials')
    .addCommand(listCommand(outputOf))
    .addCommand(showCommand(outputOf))
    .addCommand(refreshCommand(outputOf))
    .addCommand(revokeCommand(outputOf))

const listCommand = (outputOf: OutputOf): Command =>
  new Command('list')
    .description('leases, newest first (operators and reviewers); `--state revoking` shows what is not proven dead')
    .option('--state <state>', 'reserved, active, revoking, lapsing, revoked, expired or failed')
    .option('--agent <name>', 'of this agent')
    .option('--grant <name>', 'of this grant')
    .option('--provider <name>', 'of this provider')
    .option('--task <task>', 'of this task')
    .option('--stuck <boolean>', 'true: only those whose revocation has failed for too long')
    .option('--standing', 'only those of secrets that live on when the lease ends')
    .option('--limit <count>', 'at most', '50')
    .option('--cursor <cursor>', 'from the page before')
    .action(async ({ standing, ...filter }: Record<string, string>, command: Command) => {
      const page = await connect().listLeases({ ...filterOf(filter), ...(standing && { standing }) })
      outputOf(command).result(page, () => [leaseTable(page.items), ...(page.next === null ? [] : [`more: --cursor ${page.next}`])].join('\n'))
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
      const { decision, lease } = await connect().refreshLease(id)
      const credential = lease.credential.reveal()
      outputOf(command).result(
        { decision, lease: { ...lease, credential } },
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
