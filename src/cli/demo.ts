import { Command } from 'commander'
import { type Client, createClient } from '../client/client.ts'
import { clientSettings } from '../config/environment.ts'
import { showDatabase } from './demo/database.ts'
import { openDatabase } from './demo/psql.ts'
import { startResourceServer } from './demo/resource-server.ts'
import { createShow } from './demo/steps.ts'
import { showTokens } from './demo/tokens.ts'
import { Unsuccessful } from './failure.ts'
import { table } from './output.ts'
import type { OutputOf } from './program.ts'

/** Where `npm run stack` puts it. */
const stackDatabase = 'postgresql://127.0.0.1:5433/ledger'

/** `mayfly demo`: an agent's whole life against a running broker, with the clock beside it. */
export const demoCommand = (outputOf: OutputOf): Command =>
  new Command('demo')
    .description("an agent's whole life against a running development broker")
    .option('--data <folder>', 'the data folder of the broker', '.mayfly')
    .option(
      '--vault [database]',
      `with a login of a database, which Vault or OpenBao makes: the broker runs with deploy/vault/example. Where psql finds the database (${stackDatabase})`,
    )
    .action(async ({ data, vault }: { data: string; vault?: string | true }, command: Command) => {
      const output = outputOf(command)
      const { agent, operator, resource } = await clientsOf(data)
      const show = createShow(output)
      if (vault === undefined) {
        await using server = await startResourceServer((token) => resource.introspect(token))
        await showTokens(agent, operator, server, show)
      } else await showDatabase(agent, operator, await openDatabase(vault === true ? stackDatabase : vault), show)

      const { steps, tasks } = show
      const entries = (await Promise.all(tasks.map(({ id }) => operator.listEntries({ task: id })))).flatMap(({ items }) => items.toReversed())
      output.result({ steps, entries }, () => {
        const rows = entries.map(({ at, kind, lease, task, body }) => [at.slice(11, 23), kind, lease ?? task, cause(body)])
        return `\nWhat the ledger keeps of it:\n${table(['AT', 'ENTRY', 'ABOUT', 'WHY'], rows)}`
      })
      if (steps.some(({ ok }) => !ok)) throw new Unsuccessful()
    })

async function clientsOf(data: string): Promise<Record<'agent' | 'operator' | 'resource', Client>> {
  const { devToken } = await import('../main/development.ts')
  const { url } = clientSettings()
  const as = (sub: string): Client => createClient({ url, token: () => devToken({ data, sub, lifetimeSeconds: 300 }) })
  return { agent: as('agent:invoice-bot'), operator: as('operator:ops'), resource: as('resource:invoices') }
}

function cause(body: unknown): string {
  const { cause: why, outcome, policies } = body as { cause?: unknown; outcome?: unknown; policies?: unknown }
  if (Array.isArray(policies)) return `${String(outcome)}: ${policies.join(', ')}`
  return typeof why === 'string' ? why : ''
}
