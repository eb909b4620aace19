import { withAllFaults } from '../base/errors.ts'
import type { Config } from '../config.ts'
import { openConsoleKey } from '../console/key.ts'
import { openLogKey } from '../ledger/log-key.ts'
import { openDigestKey } from '../tasks/digest-key.ts'

/** The keys of which this broker has files of its own: of the log where no provider keeps it. @throws ConfigurationError with the faults of all */
export async function openKeyFiles({ keys, logKey, console: people }: Config, production: boolean) {
  const [digestKey, consoleKey, ownLogKey] = await withAllFaults([
    openDigestKey(keys),
    people || !production ? openConsoleKey(keys) : Promise.resolve(undefined),
    logKey ? Promise.resolve(undefined) : openLogKey(keys),
  ])
  return { digestKey, consoleKey, ownLogKey }
}
