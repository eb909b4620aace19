import { stopwatch } from '../../base/time.ts'
import { type AwsAction, faultOf } from './answers.ts'

/** Told of every request: `outcome` is `ok` or a ProviderFault. */
export type Told = (action: AwsAction, outcome: string, seconds: number) => void

/** Milliseconds for one attempt. The SDK has no limit of its own, and only warns past `requestTimeout` unless it is told to throw. */
export const attempt = { connectionTimeout: 1_000, requestTimeout: 3_000, throwOnRequestTimeout: true } as const

/** Makes one request: it is told of, and what it throws is a ProviderError. */
export type Ask = <Answer>(action: AwsAction, call: () => Promise<Answer>) => Promise<Answer>

/** @param name of the provider */
export function asking(name: string, told: Told): Ask {
  return async (action, call) => {
    const elapsed = stopwatch()
    let outcome = 'ok'
    try {
      return await call()
    } catch (error) {
      const fault = faultOf(name, action, error)
      outcome = fault.fault
      throw fault
    } finally {
      told(action, outcome, elapsed() / 1_000)
    }
  }
}
