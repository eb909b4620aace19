import { ProviderError, type ProviderFault } from '../provider.ts'

/** What was asked, in the words of AWS's API: of STS, and of IAM. */
export type AwsAction = 'AssumeRole' | 'AssumeRoleWithWebIdentity' | 'GetCallerIdentity' | 'GetScopedCredentials' | IamAction
export type IamAction =
  | 'GetAccountSummary'
  | 'GetPolicy'
  | 'GetPolicyVersion'
  | 'GetRole'
  | 'GetRolePolicy'
  | 'ListPolicyVersions'
  | 'ListRolePolicies'

/** STS's names for what would be answered alike however often it is asked, in the words that whoever asked may read. */
const refusals: Readonly<Record<string, string>> = {
  AccessDenied: 'the role does not let the broker assume it, or the broker may not ask',
  MalformedPolicyDocument: 'the session policy is not one',
  PackedPolicyTooLarge: 'the session policy is too large once it is packed',
  ValidationError: 'a value is not allowed, such as a longer session than the role gives',
  RegionDisabled: 'the account does not use this Region',
  InvalidIdentityToken: 'the account has no OIDC provider for `public_url` and this audience, or does not find the key in its JWK set',
  IDPRejectedClaim: 'AWS does not take the token that the broker signed: look at its clock',
  IDPCommunicationError: 'AWS cannot read the JWK set of `public_url`',
}

/** Names for what is wrong with the broker's own credentials: everything waits for those, and the grant is not to blame. */
const ownCredentials: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredToken',
  'InvalidClientTokenId',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
])

/** Errors of a connection that never came to be: nothing was sent on it. */
const neverSent: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/**
 * An error of the SDK as the house knows it. Its message is dropped, for it names accounts, roles and sessions. Names are compared without the suffix
 * `Exception`, which the SDK adds to some of them (reference: STS API, "Common errors").
 */
export function faultOf(provider: string, action: AwsAction, error: unknown): ProviderError {
  // The broker's own credentials could not be had, so AWS was not asked.
  if (error instanceof ProviderError) return error
  const { name: given = '', code, $metadata } = error as { name?: string; code?: string; $metadata?: { httpStatusCode?: number } }
  const name = given.replace(/Exception$/, '')
  const status = $metadata?.httpStatusCode
  const say = (fault: ProviderFault, why: string, minted: 'no' | 'maybe'): ProviderError =>
    new ProviderError(fault, `${provider} did not answer ${action}: ${why}`, minted, error)

  if (ownCredentials.has(given) || ownCredentials.has(name))
    return say('unavailable', "the broker's own AWS credentials are missing or refused", 'no')
  if (/^Throttl|^TooManyRequests|^RequestLimitExceeded/.test(name)) return say('unavailable', 'AWS throttles the broker', 'no')
  const refusal = refusals[name]
  if (refusal !== undefined) return say('refused', refusal, 'no')
  if (status !== undefined && status >= 400 && status < 500) return say('refused', `status ${status}`, 'no')
  if (status !== undefined && status >= 500) return say('unavailable', `status ${status}`, 'maybe')
  if (code !== undefined && neverSent.has(code)) return say('unavailable', 'it could not be reached', 'no')
  if (name === 'TimeoutError' || name === 'AbortError') return say('timed_out', 'it gave no answer in time', 'maybe')
  return say('unavailable', 'the connection was lost', 'maybe')
}
