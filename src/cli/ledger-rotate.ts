import { Command } from 'commander'
import { counted } from './output.ts'
import type { OutputOf } from './program.ts'

/** `mayfly ledger rotate-key`: on a machine that has the store and the keys folder, as whoever runs the broker. */
export const rotateCommand = (outputOf: OutputOf): Command =>
  new Command('rotate-key')
    .description('close the log at its last checkpoint and open the next one under a new key, which takes the place of log.key')
    .requiredOption('--config <file>', 'mayfly.yaml')
    .option('--lost', 'the key of the log is nowhere any more: close it by the verifier key that the store has')
    .action(async ({ config, lost = false }: { config: string; lost?: boolean }, command: Command) => {
      const { rotateLogKey } = await import('../main/log-key.ts')
      const { closed, opened } = await rotateLogKey(config, { lost })
      const view = {
        closed: { origin: closed.origin, size: closed.size, root: closed.root.toString('base64'), checkpoint: closed.note },
        opened: { origin: opened.origin, first: opened.log.first, key: opened.key },
      }
      outputOf(command).result(
        view,
        () => `closed      ${closed.origin}, ${counted(closed.size, 'entry', 'entries')}, root ${view.closed.root}
opened      ${opened.origin}, from entry ${opened.log.first} on
key         ${opened.key}

Give log.key to every other broker of this ledger, and start all of them again: until then those do not sign.
Hand the verifier key to whoever verifies this ledger, besides the one that they have.`,
      )
    })
