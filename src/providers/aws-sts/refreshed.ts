import { ageOf, type Clock } from '../../base/time.ts'

/** Credentials in the shape in which clients of the SDK take them. In plain text, because they sign with them; they go nowhere else. */
export interface AwsCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  /** When the SDK counts on their end; see `refreshed`. */
  readonly expiration?: Date
}

/** What a client of the SDK is given as `credentials`. @throws ProviderError `unavailable`: whatever it was for did not reach AWS */
export type CredentialSource = () => Promise<AwsCredentials>

/** A session that was begun. */
export interface Begun {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string
}

/** Milliseconds for which nobody tries again after beginning a session failed. */
const pause = 1_000
/** Milliseconds before its end that a session is not used any more: a request is under way for as long at most. */
const spare = 30_000
/** Milliseconds before `expiration` from which on the SDK asks for credentials at each request (@smithy/core 3, memoizeIdentityProvider). */
const askedAhead = 300_000

/**
 * Sessions of one role, one after the other. Each is followed by another at half of its life, in the background: the other half is what an STS that is
 * down has to come back in. Whoever comes while there is none waits for the one that is being begun.
 *
 * @param begin asks for one; its errors are ProviderErrors
 * @param life milliseconds that it asks for: its end is counted from before it asked and not by what AWS answers, whose clock may be another
 * @param timeout milliseconds
 */
export function refreshed(
  { begin, life, timeout }: { readonly begin: (signal: AbortSignal) => Promise<Begun>; readonly life: number; readonly timeout: number },
  clock: Clock,
): CredentialSource {
  let current: { readonly credentials: AwsCredentials; readonly begunAt: number } | undefined
  let beginning: Promise<AwsCredentials> | undefined
  let failed: { readonly error: unknown; readonly at: number } | undefined

  async function another(): Promise<AwsCredentials> {
    const begunAt = clock()
    try {
      const session = await begin(AbortSignal.timeout(timeout))
      const credentials = { ...session, expiration: new Date(begunAt + life / 2 + askedAhead) }
      current = { credentials, begunAt }
      return credentials
    } catch (error) {
      failed = { error, at: clock() }
      throw error
    } finally {
      beginning = undefined
    }
  }

  /** The session that is being begun, or another one, but not right after one came to nothing. */
  function next(): Promise<AwsCredentials> {
    if (beginning) return beginning
    if (failed && ageOf(failed.at, clock) < pause) return Promise.reject(failed.error)
    return (beginning = another())
  }

  return async () => {
    const now = clock()
    const age = current ? now - current.begunAt : Infinity
    // Below 0 the clock was set back, and says nothing of age.
    const usable = age >= 0 && age < life - spare
    if (!current || !usable) return await next()
    if (age >= life / 2) next().catch(() => {})
    return current.credentials
  }
}
