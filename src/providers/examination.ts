import { type Finding, ProviderError } from './provider.ts'

/** What a look finds; or, where the provider could not do what it takes, that as a fault. */
export async function orFault(
  subject: string,
  look: () => Promise<Finding[]>,
  inWords: (message: string) => string = (message) => message,
): Promise<Finding[]> {
  try {
    return await look()
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return [{ level: 'fault', subject, message: inWords(error.message) }]
  }
}

/** One part of an examination: where the backend stops answering in between, the rest is examined all the same. */
export const section = (subject: string, look: () => Promise<Finding[]>): Promise<Finding[]> =>
  orFault(subject, look, (message) => `could not be examined: ${message}`)
