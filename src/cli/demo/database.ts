import { type Client, MayflyProblem, type OpenTask } from '../../client/client.ts'
import type { ClosedTask } from '../../http/contract.ts'
import { UsageError } from '../failure.ts'
import type { Database, Login, Session } from './psql.ts'
import { anything, is, lifeOf, type Show } from './steps.ts'

/** A login of a database, made by Vault for one task: it dies with the task, and so does the session that it opened. */
export async function showDatabase(agent: Client, operator: Client, database: Database, show: Show): Promise<void> {
  const open = async (duration: string): Promise<OpenTask> =>
    show.task(
      await agent.open({ kind: 'invoice-sync', purpose: 'mayfly demo --vault', duration, grants: [{ name: 'ledger-read' }] }).catch(explainMissing),
    )
  const sessions: Session[] = []
  const enter = async (login: Login): Promise<string> => {
    const session = await database.login(login)
    if (typeof session === 'string') return `refused: ${session}`
    sessions.push(session)
    return `a session as ${session.user}`
  }
  const cut = async (): Promise<string> => {
    const words = await sessions.at(-1)?.end()
    return words === undefined ? 'is still open' : `cut: ${words}`
  }

  try {
    // Before anything is declared: a database that is away is a fault of the demo, and no refusal.
    await show.step('somebody logs in to the database with a guess', is('refused'), () => enter({ username: 'somebody', password: 'guess' }))
    let first!: OpenTask
    await show.step('agent invoice-bot declares a task', anything, async () => {
      first = await open('5m')
      return `${first.id}, permitted by ${first.decision.policies.join(', ')}`
    })
    const login = loginOf(first)
    const lease = first.leases[0]!
    await show.step(`it logs in to the database (${lease.grant}, ${lifeOf(lease)})`, is('a session as'), () => enter(login))
    await show.step('it completes the task in the middle of a query', is('completed, revoked'), async () => outcomeOf(await first.complete()))
    await show.step('the session', is('cut'), cut)
    await show.step('it logs in again', is('refused'), () => enter(login))

    const second = await open('5m')
    await enter(loginOf(second))
    await show.step('an operator ends another task by its id', is('revoked'), async () => {
      const closed = await operator.revokeTask(second.id, 'the demo says so')
      return `${closed.task.state} by ${closed.task.ended_by ?? '?'}`
    })
    await show.step('its session', is('cut'), cut)

    const third = await open('5s')
    await enter(loginOf(third))
    await show.step('nobody ends a third one, of five seconds', is('cut'), cut)
    await show.step('its login', is('refused'), () => enter(loginOf(third)))
    await show.step('its agent completes it, too late', is('revoked'), async () => outcomeOf(await third.complete()))
  } finally {
    for (const session of sessions) session.close()
  }
}

function explainMissing(error: unknown): never {
  if (!(error instanceof MayflyProblem) || (error.code !== 'unknown_grant' && error.code !== 'unknown_kind')) throw error
  throw new UsageError('this broker has no grant ledger-read: run it with `mayfly dev --config deploy/vault/example/mayfly.yaml`')
}

const outcomeOf = ({ task, leases }: ClosedTask): string =>
  [task.state, ...leases.map(({ state, evidence, error }) => `${state} (${evidence?.statement ?? error ?? 'no evidence'})`)].join(', ')

function loginOf({ leases: [lease] }: OpenTask): Login {
  const credential = lease!.credential.reveal()
  if (credential.type !== 'username_password') throw new Error(`the grant ${lease!.grant} gives no login of a database: ${credential.type}`)
  return credential
}
