import { BrokerError } from '../base/errors.ts'
import { unlessFired } from '../base/signal.ts'

/** Waits for shared work, which goes on if this caller gives up. @throws BrokerError `timed_out` when the signal fires first */
export async function withinSignal(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const done = await unlessFired(
    work.then(() => true),
    signal,
  )
  if (!done) throw new BrokerError('timed_out', 'The keys of the issuer did not arrive in time')
}
