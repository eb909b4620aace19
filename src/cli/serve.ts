import { Command } from 'commander'
import { reloadSignal, stopSignal } from './signals.ts'

/** `mayfly serve`: production. */
export const serveCommand = (): Command =>
  new Command('serve')
    .description('run a broker; exits with every configuration fault listed, drains on SIGTERM, reloads catalogue and policies on SIGHUP')
    .requiredOption('--config <file>', 'mayfly.yaml')
    .action(async ({ config }: { config: string }) => {
      const reloads = reloadSignal()
      const { serve } = await import('../main.ts')
      await serve(config, stopSignal(), reloads)
      // A connection that the store's end has forgotten would hold the process for as long as TCP hopes. Whatever had to be ended has been.
      process.exit()
    })
