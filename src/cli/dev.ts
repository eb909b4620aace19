import { Command } from 'commander'
import { parseDuration } from '../base/time.ts'
import { UsageError } from './failure.ts'
import { duration } from './grants.ts'
import type { OutputOf } from './program.ts'
import { reloadSignal, stopSignal } from './signals.ts'

/** `mayfly dev`, and `mayfly dev token`. */
export const devCommand = (outputOf: OutputOf): Command =>
  new Command('dev')
    .description('run a broker for development: loopback only, embedded store, local issuer')
    .option('--data <folder>', 'folder of store, keys and local issuer', '.mayfly')
    .option('--port <number>', 'port on 127.0.0.1', '7420')
    .option('--config <file>', 'a configuration of your own in the place of deploy/example/mayfly.yaml')
    .action(async (options: { data: string; port: string; config?: string }, command: Command) => {
      const port = Number(options.port)
      if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new UsageError('--port must be a number from 1 to 65535')
      const reloads = reloadSignal()
      const { dev } = await import('../main.ts')
      const output = outputOf(command)
      await dev({ data: options.data, port, config: options.config }, stopSignal(), reloads, (facts) =>
        output.result(facts, () => welcome(facts, options.data, options.config)),
      )
    })
    .addCommand(tokenCommand(outputOf))
    .addCommand(consoleCommand(outputOf))

const tokenCommand = (outputOf: OutputOf): Command =>
  new Command('token')
    .description('a workload token of the local issuer, on stdout and nothing else')
    .option('--agent <name>', 'as this agent')
    .option('--operator <name>', 'as this operator; `ops` in the example')
    .option('--resource <name>', 'as this resource server; `invoices` in the example')
    .option('--data <folder>', 'the data folder of the broker', '.mayfly')
    .option('--lifetime <duration>', 'at most 1h; a broker takes a token for 30 s longer, for clocks that differ', duration, '1h')
    .action(async (_: object, command: Command) => {
      // `--data` stands on `dev` too, and commander gives it to whichever comes first.
      const options = command.optsWithGlobals<{ agent?: string; operator?: string; resource?: string; data: string; lifetime: string }>()
      const lifetime = parseDuration(options.lifetime)!
      if (lifetime > 3_600_000) throw new UsageError('--lifetime must be at most 1h')
      const { devToken } = await import('../main/development.ts')
      const token = await devToken({ data: options.data, sub: subjectOf(options), lifetimeSeconds: lifetime / 1_000 })
      outputOf(command).result({ token }, () => token)
    })

const consoleCommand = (outputOf: OutputOf): Command =>
  new Command('console')
    .description('a link that signs in to the console, once, within ten minutes; on stdout and nothing else')
    .option('--operator <name>', 'as this operator; `ops` or `reviewer` in the example', 'ops')
    .option('--data <folder>', 'the data folder of the broker', '.mayfly')
    .action(async (_: object, command: Command) => {
      const { operator, data } = command.optsWithGlobals<{ operator: string; data: string }>()
      const { devConsole } = await import('../main/development.ts')
      const link = await devConsole({ data, operator })
      outputOf(command).result({ link }, () => link)
    })

function subjectOf(options: Readonly<Record<string, string | undefined>>): string {
  const given = ['agent', 'operator', 'resource'].filter((role) => options[role] !== undefined)
  const [role] = given
  if (role === undefined || given.length > 1) throw new UsageError('say as whom: one of --agent NAME, --operator NAME, --resource NAME')
  return `${role}:${options[role]!}`
}

function welcome({ url, console }: { url: string; console: string }, data: string, config: string | undefined): string {
  const folder = data === '.mayfly' ? '' : ` --data ${data}`
  const at = url === 'http://127.0.0.1:7420' ? '' : `MAYFLY_URL=${url} `
  const example = `See an agent's whole life, in another terminal:
  ${at}npx mayfly demo${folder}

Or be the agent:
  export ${at}MAYFLY_TOKEN=$(npx mayfly dev token --agent invoice-bot${folder})
  npx mayfly exec --kind invoice-sync --grant invoices-api -- sh -c 'ls -l $MAYFLY_CREDENTIALS'`
  const own = `Be an agent of your catalogue, in another terminal:
  export ${at}MAYFLY_TOKEN=$(npx mayfly dev token --agent NAME${folder})`
  return `
Mayfly is listening on ${url} (development: loopback only, data in ${data})

${config === undefined ? example : own}

Watch it in the console (this link works once, within ten minutes; \`npx mayfly dev console${folder}\` makes another):
  ${console}

API: ${url}/docs    ready: ${url}/readyz    metrics: ${url}/metrics
`
}
