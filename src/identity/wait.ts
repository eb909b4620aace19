import { BrokerError } from '../base/errors.ts'

/** Waits for work that others wait for too: whoever gives up leaves, and the work goes on. @throws BrokerError `timed_out` when the signal fires first */
export async function withinSignal<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let leave: (() => void) | undefined
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(new BrokerError('timed_out', 'The keys of the issuer did not arrive in time'))
    if (signal.aborted) leave()
    else signal.addEventListener('abort', leave, { once: true })
  })
  try {
    return await Promise.race([work, left])
  } finally {
    if (leave) signal.removeEventListener('abort', leave)
  }
}
