import { freshToken } from '../files.ts'
import { ProviderError } from '../provider.ts'
import { authOf, type Health, healthOf, isItsOwn, says, selfOf, type TokenAuth, unexpected } from './answers.ts'
import type { Ask, Question, VaultAnswer } from './client.ts'
import { asProviderError } from './faults.ts'
import type { VaultSettings } from './settings.ts'

/** The broker as Vault knows it. Tasks do not depend on it: their tokens are orphans, and outlive this one. */
export interface Identity {
  /**
   * Asks with the broker's own token. Logs in first where it has none, and once more where Vault does not know the token any more.
   * @throws ProviderError where there is no answer; any status is one
   */
  ask(question: Omit<Question, 'token'>, signal: AbortSignal): Promise<VaultAnswer & At>
}

/** At which cluster the broker's token that was shown had been given to it, as its node told then. Undefined: it told none. */
interface At {
  readonly cluster: string | undefined
}

/** A token of the broker's. */
interface Login extends At {
  readonly token: string
  /** Seconds; 0 for one that never ends. */
  readonly life: number
  readonly renewable: boolean
}

/** Part of its life after which a token is renewed: time for some failures before it ends. */
const renewedAfter = 2 / 3
/** Milliseconds for which nobody tries again after a login failed. */
const pause = 1_000
/** Milliseconds for which a new token is taken to be good: if it is refused all the same, another login would not help. */
const trusted = 5_000
/** Milliseconds; longer ones overflow a timer. */
const longestTimer = 24 * 3_600_000

/**
 * @param assertion signs a JWT by which the broker names itself; there for the method `jwt` without a token file
 * @param elapsed milliseconds that only grow
 */
export function createIdentity(
  name: string,
  settings: VaultSettings,
  ask: Ask,
  assertion: (() => Promise<string>) | undefined,
  elapsed: () => number,
): Identity {
  const { namespace } = settings
  const credentials = credentialsOf(settings, assertion)
  let current: Promise<Login> | undefined
  let begunAt = Number.NEGATIVE_INFINITY
  let failedAt = Number.NEGATIVE_INFINITY
  let renewal: NodeJS.Timeout | undefined

  const put = (question: Question, signal: AbortSignal): Promise<VaultAnswer> =>
    ask({ namespace, ...question }, signal).catch((error: unknown) => {
      throw asProviderError(name, error)
    })

  const putAs = async ({ token, cluster }: Login, question: Omit<Question, 'token'>, signal: AbortSignal): Promise<VaultAnswer & At> => ({
    ...(await put({ ...question, token }, signal)),
    cluster,
  })

  /** The login that stands, or a new one that everybody shares who asks meanwhile: so its time is its own, and not that of whoever came first. */
  function login(): Promise<Login> {
    if (current) return current
    if (elapsed() - failedAt < pause) throw new ProviderError('unavailable', `${name} did not accept the broker a moment ago`, 'no')
    begunAt = elapsed()
    const begun = begin(AbortSignal.timeout(settings.timeout)).catch((error: unknown) => {
      current = undefined
      failedAt = elapsed()
      if (!(error instanceof ProviderError)) throw error
      // Nothing was minted by a login. And it is the broker that was refused, not what it was asked for: that can be had once this is mended.
      throw error.as({ fault: error.fault === 'refused' ? 'unavailable' : error.fault, minted: 'no' })
    })
    begun.then(renewInTime, () => {})
    return (current = begun)
  }

  async function begin(signal: AbortSignal): Promise<Login> {
    const { cluster_id: cluster } = await fitNode(name, (question) => put(question, signal))
    const credential = await credentials().catch((cause: unknown) => {
      throw new ProviderError('unavailable', `${name}: the file with the broker's own credential cannot be used`, 'no', { cause })
    })
    if ('token' in credential) return { ...(await lookUp(credential.token, signal)), cluster }
    const answer = await put(credential, signal)
    const auth = authOf(answer)
    if (!auth) throw unexpected(name, 'login to the broker', answer, 'no')
    return { ...loginOf(auth.auth), cluster }
  }

  /** A token from a file: how long it lives is for Vault to say. */
  async function lookUp(token: string, signal: AbortSignal): Promise<Omit<Login, 'cluster'>> {
    const answer = await put({ path: 'auth/token/lookup-self', token }, signal)
    const self = selfOf(answer)
    if (!self) throw unexpected(name, 'word about the token of the broker', answer, 'no')
    return { token, life: self.data.ttl, renewable: self.data.renewable ?? false }
  }

  /** Renews a token before it ends; where it cannot be made to live as long again, the next question logs in. */
  function renewInTime(login: Login): void {
    clearTimeout(renewal)
    if (login.life === 0) return
    const own = current
    const ends = elapsed() + login.life * 1_000
    const renew = (): Promise<void> => renewed(login, () => (ends - elapsed()) / 1_000).then(follow)
    renewal = setTimeout(() => void renew(), Math.min(longestTimer, login.life * 1_000 * renewedAfter)).unref()

    /** Unless another login has taken its place while Vault was asked: that one is renewed by itself. */
    function follow(next: Login | undefined): void {
      if (current !== own) return
      current = next && Promise.resolve(next)
      if (next) renewInTime(next)
    }
  }

  /**
   * What a renewal has made of a login. Never rejects. Undefined: the next question logs in.
   *
   * @param left seconds until it ends, where it was not renewed
   */
  async function renewed(login: Login, left: () => number): Promise<Login | undefined> {
    const { token, life, renewable } = login
    const question = { path: 'auth/token/renew-self', body: {}, token }
    const answer = renewable ? await put(question, AbortSignal.timeout(settings.timeout)).catch(() => undefined) : undefined
    const auth = answer && authOf(answer)?.auth
    const next = auth && { ...login, life: auth.lease_duration, renewable: auth.renewable }
    if (settings.auth.method !== 'token') return next && next.life >= life / 2 ? next : undefined
    if (next) return next
    // A file is all there is of that method: its token is used to its end. Where nobody knows whether it can be renewed, Vault is asked again, each time after
    // the same part of what is left.
    const isRefused = !renewable || (answer?.status === 403 && isItsOwn(answer))
    if (isRefused) return { ...login, life: 0, renewable: false }
    return left() >= 1 ? { ...login, life: left() } : undefined
  }

  return {
    async ask(question, signal) {
      const used = login()
      const answer = await putAs(await used, question, signal)
      if (answer.status !== 403 || !tokenIsUnknown(answer)) return answer
      if (current === used) {
        if (elapsed() - begunAt < trusted)
          throw new ProviderError('unavailable', `${name} does not know the token that it gave the broker a moment ago`, 'no')
        current = undefined
      }
      return await putAs(await login(), question, signal)
    },
  }
}

/**
 * A token that is dead, as against a policy that is too small, of which both makers say it with the count of a multierror. Of a dead token HashiCorp's Vault says
 * that it is invalid (seen on 2.1.0-beta1), and OpenBao no more than that permission is denied (seen on 2.7.2). What a proxy says is said of no token.
 */
const tokenIsUnknown = (answer: VaultAnswer): boolean => isItsOwn(answer) && (says(answer, 'invalid token') || !says(answer, ' occurred:'))

const loginOf = ({ client_token: token, lease_duration: life, renewable }: TokenAuth): Omit<Login, 'cluster'> => ({ token, life, renewable })

/** What proves the broker, read anew for each login. */
function credentialsOf(
  { auth }: VaultSettings,
  assertion: (() => Promise<string>) | undefined,
): () => Promise<{ readonly token: string } | Required<Pick<Question, 'path' | 'body'>>> {
  switch (auth.method) {
    case 'token': {
      const read = freshToken(auth.token_file)
      return async () => ({ token: await read() })
    }
    case 'approle': {
      const read = freshToken(auth.secret_id_file)
      return async () => ({ path: `auth/${auth.mount}/login`, body: { role_id: auth.role_id, secret_id: await read() } })
    }
    case 'kubernetes':
    case 'jwt': {
      const read = auth.token_file === undefined ? assertion! : freshToken(auth.token_file)
      return async () => ({ path: `auth/${auth.mount}/login`, body: { role: auth.role, jwt: await read() } })
    }
  }
}

/** A node's health is known outside namespaces only. */
export const healthQuestion: Question = { path: 'sys/health', namespace: undefined }

/** The health of a node that can be asked. A standby that answers from old state confirms what proves nothing. @throws ProviderError */
async function fitNode(name: string, put: (question: Question) => Promise<VaultAnswer>): Promise<Health> {
  const answer = await put(healthQuestion)
  const health = healthOf(answer)
  if (!health) throw unexpected(name, 'word about its health', answer, 'no')
  if (health.sealed) throw new ProviderError('unavailable', `${name} is sealed`, 'no')
  if (!health.initialized) throw new ProviderError('unavailable', `${name} is not initialized`, 'no')
  if (health.standby && answersFromOldState(health))
    throw new ProviderError('refused', `${name} is a standby that answers from old state: ask its active node${orNewer(health)}`, 'no')
  return health
}

/**
 * Whether a node like this, as a standby, answers about leases and accessors from a state of its own that may be old, and does not pass revocations on: any of
 * OpenBao 2.5.0 to 2.6.1, and a performance standby of Vault Enterprise: revoking what it has not heard of yet writes nothing, and what writes nothing is
 * not passed on (source of 2.1; no Enterprise was tried).
 */
export function answersFromOldState({ version, enterprise, performance_standby: performs }: Health): boolean {
  // Before 1.16 Vault does not say `enterprise`.
  if (performs === true) return true
  if (enterprise !== undefined) return false
  const [major = 0, minor = 0, patch = 0] = version.split(/[.+-]/).map(Number)
  return major === 2 && (minor === 5 || (minor === 6 && patch < 2))
}

/** What else helps against it: Vault Enterprise is so in every version. */
export const orNewer = ({ enterprise, performance_standby: performs }: Health): string =>
  enterprise === undefined && performs !== true ? ', or run 2.6.2 or newer' : ''
