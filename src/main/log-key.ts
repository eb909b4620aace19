import { ConfigurationError, describe } from '../base/errors.ts'
import { loadConfig } from '../config.ts'
import type { LogKeySettings } from '../config/log-key.ts'
import { connect } from '../ledger/connect.ts'
import { type LogKey, openLogKey, openNextLogKey, remoteLogKey, takeNextLogKey } from '../ledger/log-key.ts'
import { type Rotated, rotateLog } from '../ledger/rotation.ts'
import { providerKinds } from '../providers/kinds.ts'
import { ProviderError } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import type { Telemetry } from '../telemetry.ts'

/** Milliseconds for which a start waits for the key of the log. */
const longestGreeting = 5_000

/**
 * The key of the log that a provider keeps. Where it does not answer the broker starts all the same, for ending leases needs no log.
 *
 * @throws ConfigurationError for a key that does answer, and is not fit to sign a log
 */
export async function openKeyOfLog(logKey: LogKeySettings, targets: ReadonlyMap<string, Target>, { log }: Telemetry): Promise<LogKey> {
  const remote = targets.get(logKey.provider)!.signingKey(logKey.settings)
  await remote.publicKey(AbortSignal.timeout(longestGreeting)).catch((error: unknown) => {
    if (!(error instanceof ProviderError)) throw error
    if (error.fault === 'refused' || error.fault === 'garbage') throw new ConfigurationError([`log_key: ${error.message}`])
    log.warn({ error: describe(error) }, 'the key of the log does not answer: the broker starts, and signs as soon as it does')
  })
  return remoteLogKey(remote)
}

/**
 * Closes the log of a configured store and opens the next one under a key of its own, which takes the place of `log.key` in the keys folder. Interrupted
 * anywhere, it is done or not; doing it again goes on where it was. Knows key files alone.
 *
 * @param lost whether the key that the log was signed with is nowhere any more
 * @throws ConfigurationError, also where a provider keeps the key; BrokerError `store_unavailable`; `conflict` with what speaks against it
 */
export async function rotateLogKey(configFile: string, { lost }: { readonly lost: boolean }): Promise<Rotated> {
  const { keys, store, logKey } = await loadConfig(configFile, providerKinds)
  if (logKey)
    throw new ConfigurationError([
      'log_key: Vault keeps the key of this log, and only a log that log.key signs can be closed for another key. Where the key is gone from Vault, take log_key out and use --lost',
    ])
  await using ledger = await connect(store)
  const [key, next] = [lost ? undefined : await openLogKey(keys), await openNextLogKey(keys)]
  const rotated = await rotateLog({ ledger, key, next })
  await takeNextLogKey(keys, lost ? undefined : rotated.closed.log.number)
  return rotated
}
