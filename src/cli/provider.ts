import { Command } from 'commander'
import { Unsuccessful } from './failure.ts'
import { paint, table } from './output.ts'
import type { OutputOf } from './program.ts'

/** `mayfly provider check`: from this machine, with the configuration's own credentials. */
export const providerCommand = (outputOf: OutputOf): Command =>
  new Command('provider').description('the backends that mint').addCommand(
    new Command('check')
      .description('ask each configured provider whether it answers and accepts the broker')
      .requiredOption('--config <file>', 'mayfly.yaml')
      .action(async ({ config }: { config: string }, command: Command) => {
        const { checkProviders } = await import('../main.ts')
        const checked = await checkProviders(config)
        const output = outputOf(command)
        output.result(checked, () =>
          table(
            ['PROVIDER', 'STATE', 'DETAIL'],
            checked.map(({ name, ok, detail }) => [name, ok ? paint(output, 'green', 'ok') : paint(output, 'red', 'failing'), detail]),
          ),
        )
        if (checked.some(({ ok }) => !ok)) throw new Unsuccessful()
      }),
  )
