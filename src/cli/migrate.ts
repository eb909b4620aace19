import { Command } from 'commander'
import type { OutputOf } from './program.ts'

/** `mayfly migrate`: as the owner of the database, before brokers of a new version start. */
export const migrateCommand = (outputOf: OutputOf): Command =>
  new Command('migrate')
    .description('bring the schema of the configured store up to date; needs the owner of the database in store.url')
    .requiredOption('--config <file>', 'mayfly.yaml')
    .action(async ({ config }: { config: string }, command: Command) => {
      const { migrate } = await import('../main.ts')
      const { isNewer } = await migrate(config)
      outputOf(command).result({ migrated: !isNewer }, () =>
        isNewer ? 'a newer version has changed this store: this one has nothing to bring up to date' : 'the schema is up to date',
      )
    })
