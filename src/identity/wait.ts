import { BrokerError } from '../base/errors.ts'
import { whenFired } from '../base/signal.ts'

/** Waits for shared work, which goes on if this caller gives up. @throws BrokerError `timed_out` when the signal fires first */
export async function withinSignal<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let forget = (): void => {}
  const left = new Promise<never>((_, reject) => {
    forget = whenFired(signal, () => reject(new BrokerError('timed_out', 'The keys of the issuer did not arrive in time')))
  })
  return await Promise.race([work, left]).finally(forget)
}
