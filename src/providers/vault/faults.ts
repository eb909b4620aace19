import { NoAnswer } from '../exchange.ts'
import { ProviderError } from '../provider.ts'

/** Why there is no answer, as the house says it: nothing of what was asked is in it, for that holds tokens. */
export function asProviderError(name: string, error: unknown): ProviderError {
  if (error instanceof ProviderError) return error
  if (!(error instanceof NoAnswer)) return new ProviderError('garbage', `${name} could not be asked`, 'maybe', { cause: error })
  return new ProviderError(error.fault, `${name} did not answer: ${error.message}`, error.sent ? 'maybe' : 'no', { cause: error.cause })
}
