import { Command } from 'commander'
import { formatDuration, stopwatch } from '../base/time.ts'
import { type Client, createClient, MayflyProblem, type OpenTask } from '../client/client.ts'
import { clientSettings } from '../config.ts'
import { startResourceServer } from './demo/resource-server.ts'
import { Unsuccessful } from './failure.ts'
import { type Output, paint, table } from './output.ts'
import type { OutputOf } from './program.ts'

/** One step of the demo. */
interface Step {
  readonly step: string
  readonly outcome: string
  readonly ms: number
  readonly ok: boolean
}

/** `mayfly demo`: an agent's whole life against a running broker, with the clock beside it. */
export const demoCommand = (outputOf: OutputOf): Command =>
  new Command('demo')
    .description("an agent's whole life against a running development broker")
    .option('--data <folder>', 'the data folder of the broker', '.mayfly')
    .action(async ({ data }: { data: string }, command: Command) => {
      const output = outputOf(command)
      const { agent, operator, resource } = await clientsOf(data)
      await using server = await startResourceServer((token) => resource.introspect(token))
      const steps: Step[] = []
      const step = async (words: string, ok: (outcome: string) => boolean, act: () => Promise<string>): Promise<void> => {
        const elapsed = stopwatch()
        const outcome = await act()
        const done = { step: words, outcome, ms: Math.round(elapsed() * 10) / 10, ok: ok(outcome) }
        steps.push(done)
        if (!output.json) console.log(line(output, done))
      }
      const tasks: OpenTask[] = []
      await live(agent, operator, (token) => server.use(token), step, tasks)
      const entries = (await Promise.all(tasks.map(({ id }) => operator.listEntries({ task: id })))).flatMap(({ items }) => items.toReversed())
      output.result({ steps, entries }, () => {
        const rows = entries.map(({ at, kind, lease, task, body }) => [at.slice(11, 23), kind, lease ?? task, cause(body)])
        return `\nWhat the ledger keeps of it:\n${table(['AT', 'ENTRY', 'ABOUT', 'WHY'], rows)}`
      })
      if (steps.some(({ ok }) => !ok)) throw new Unsuccessful()
    })

async function live(
  agent: Client,
  operator: Client,
  use: (token: string) => Promise<number>,
  step: (words: string, ok: (outcome: string) => boolean, act: () => Promise<string>) => Promise<void>,
  tasks: OpenTask[],
): Promise<void> {
  const declaration = { kind: 'invoice-sync', purpose: 'mayfly demo', duration: '5m' }
  const open = async (): Promise<OpenTask> => {
    const task = await agent.open({ ...declaration, grants: [{ name: 'invoices-api' }] })
    tasks.push(task)
    return task
  }
  let first!: OpenTask
  await step(
    'agent invoice-bot declares a task',
    () => true,
    async () => {
      first = await open()
      return `${first.id}, permitted by ${first.decision.policies.join(', ')}`
    },
  )
  const [lease] = first.leases
  const token = lease!.credential.secret() ?? ''
  const left = formatDuration(new Date(lease!.expires_at).getTime() - new Date(lease!.issued_at ?? lease!.expires_at).getTime())
  await step(`it uses its credential (${lease!.grant}, ${left})`, is('200'), async () => `resource server answers ${await use(token)}`)
  await step('it asks for what the policy refuses', is('denied'), async () => {
    const asked = { name: 'invoices-export', parameters: { customer: 'initech' }, ttl: '1m' }
    return await refusalOf(agent.open({ ...declaration, grants: [asked] }))
  })
  await step('it completes the task', is('completed'), async () => {
    const closed = await first.complete()
    return `${closed.task.state}, ${closed.leases.map(({ state, evidence }) => `${state} (${evidence?.statement ?? 'no evidence'})`).join(', ')}`
  })
  await step('it tries the credential again', is('401'), async () => `resource server answers ${await use(token)}`)
  const second = await open()
  const stolen = second.leases[0]!.credential.secret() ?? ''
  await step('an operator ends another task by its id', is('revoked'), async () => {
    const closed = await operator.revokeTask(second.id, 'the demo says so')
    return `${closed.task.state} by ${closed.task.ended_by ?? '?'}`
  })
  await step('its credential is dead as well', is('401'), async () => `resource server answers ${await use(stolen)}`)
}

const is =
  (wanted: string) =>
  (outcome: string): boolean =>
    outcome.includes(wanted)

async function refusalOf(asked: Promise<OpenTask>): Promise<string> {
  try {
    await (await asked).complete()
    return 'permitted'
  } catch (error) {
    if (!(error instanceof MayflyProblem)) throw error
    return `${error.code} (${error.decision ?? 'no decision'})`
  }
}

async function clientsOf(data: string): Promise<Record<'agent' | 'operator' | 'resource', Client>> {
  const { devToken } = await import('../main.ts')
  const { url } = clientSettings()
  const as = (sub: string): Client => createClient({ url, token: () => devToken({ data, sub, lifetimeSeconds: 300 }) })
  return { agent: as('agent:invoice-bot'), operator: as('operator:ops'), resource: as('resource:invoices') }
}

function line(output: Output, { step, outcome, ms, ok }: Step): string {
  const mark = ok ? paint(output, 'green', 'ok  ') : paint(output, 'red', 'FAIL')
  return `${mark} ${`${ms.toFixed(1)} ms`.padStart(10)}  ${step.padEnd(48)} ${outcome}`
}

function cause(body: unknown): string {
  const { cause: why, outcome, policies } = body as { cause?: unknown; outcome?: unknown; policies?: unknown }
  if (Array.isArray(policies)) return `${String(outcome)}: ${policies.join(', ')}`
  return typeof why === 'string' ? why : ''
}
