import { Command } from 'commander'
import { reloadSignal, stopSignal } from './signals.ts'

/** `mayfly serve`: production. */
export const serveCommand = (): Command =>
  new Command('serve')
    .description('run a broker; drains on SIGTERM, reloads catalogue and policies on SIGHUP')
    .addHelpText(
      'after',
      `
What is wrong with mayfly.yaml is listed at once, and nothing is started; where it is sound, so is what is wrong with catalogue, policies, keys and issuers;
then, with the store open, with the files that providers name.`,
    )
    .requiredOption('--config <file>', 'mayfly.yaml')
    .action(async ({ config }: { config: string }) => {
      const reloads = reloadSignal()
      const { serve } = await import('../main.ts')
      await serve(config, stopSignal(), reloads)
      // A connection that the store's end has forgotten would hold the process for as long as TCP hopes. Whatever had to be ended has been.
      process.exit()
    })
