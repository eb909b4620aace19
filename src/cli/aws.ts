import { Command } from 'commander'
import { lastMoment } from './aws/delivery.ts'
import { type AwsSession, sessionOf } from './aws/session.ts'
import { UsageError } from './failure.ts'
import { type AskedGrants, durationOption, grantOption, grantsOf, paramOption } from './grants.ts'
import { connect } from './session.ts'
import { some } from './task.ts'
import type { OpenTask } from '../client/client.ts'

interface Options extends AskedGrants {
  readonly kind: string
  readonly duration?: string
}

/** `mayfly aws …`: AWS sessions for programs that know nothing of Mayfly. */
export const awsCommand = (): Command =>
  new Command('aws').description('AWS sessions for SDKs that know nothing of Mayfly').addCommand(processCommand())

const processCommand = (): Command =>
  new Command('process')
    .description('credential_process of an AWS profile: opens a task and prints its session as the SDKs read it')
    .requiredOption('--kind <name>', 'kind of task')
    .addOption(grantOption().makeOptionMandatory())
    .addOption(paramOption())
    .addOption(durationOption('how long the task may last; the most that its kind allows, where absent'))
    .addHelpText(
      'after',
      `
Each call opens a task of its own, and nobody completes it: its lease lives until the deadline. Keep --duration short, or use mayfly exec.`,
    )
    .action(async (options: Options) => {
      const { kind, duration } = options
      const task = await connect().open({ kind, grants: grantsOf(options), ...some({ duration }) })
      const session = await onlySession(task)
      const { access_key_id: AccessKeyId, secret_access_key: SecretAccessKey, session_token: SessionToken } = session
      console.log(JSON.stringify({ Version: 1, AccessKeyId, SecretAccessKey, SessionToken, Expiration: lastMoment(session, task.task.deadline) }))
    })

/** @throws UsageError for a task with anything else than one AWS session; it is completed then */
async function onlySession(task: OpenTask): Promise<AwsSession> {
  const [lease, ...others] = task.leases
  const session = lease && sessionOf(lease)
  if (session !== undefined && others.length === 0) return session
  await task.complete()
  throw new UsageError('one --grant whose credential is an AWS session is needed')
}
