import { Command, Option } from 'commander'
import { Unsuccessful } from './failure.ts'
import { pair } from './grants.ts'
import { table } from './output.ts'
import type { OutputOf } from './program.ts'
import { sweepCommand } from './sweep.ts'

/** `mayfly provider …`: the backends, for whoever sets them up. */
export const providerCommand = (outputOf: OutputOf): Command =>
  new Command('provider').description('the backends that mint').addCommand(checkCommand(outputOf)).addCommand(sweepCommand(outputOf))

/** From this machine, with the configuration's own credentials. */
const checkCommand = (outputOf: OutputOf): Command =>
  new Command('check')
    .description('try each configured provider, with each grant that names it, and say what is wrong; exit 1 if anything is at fault')
    .argument('[name]', 'this provider alone')
    .requiredOption('--config <file>', 'mayfly.yaml')
    .addOption(new Option('--param <name=value>', 'tries grants with parameters; GRANT.name=value for one of them').argParser(pair))
    .action(async (only: string | undefined, { config, param }: { config: string; param?: Record<string, string> }, command: Command) => {
      const { checkProviders } = await import('../main/provider-check.ts')
      const checked = await checkProviders(config, { only, ...(param && { parameters: param }) })
      const output = outputOf(command)
      output.result(checked, () =>
        table(
          ['PROVIDER', 'STATE', 'ABOUT', 'FINDING'],
          checked.flatMap(({ name, findings }) => findings.map(({ level, subject, message }) => [name, marks[level], subject, message])),
        ),
      )
      if (checked.some(({ ok }) => !ok)) throw new Unsuccessful()
    })

/** A fault stands out from what is only to be known, also where there are no colours. */
const marks = { ok: 'ok', unchecked: 'unchecked', warning: 'warning', fault: 'FAULT' }
