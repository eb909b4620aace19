import { ProviderError, type ProviderFault } from '../provider.ts'

/** What was asked, in the words of AWS's API: of STS, and of IAM. */
export type AwsAction =
  | 'AssumeRole'
  | 'AssumeRoleWithWebIdentity'
  | 'GetCallerIdentity'
  | 'GetScopedCredentials'
  | 'DecodeAuthorizationMessage'
  | IamAction
export type IamAction =
  | 'CreatePolicyVersion'
  | 'DeletePolicyVersion'
  | 'DeleteRolePolicy'
  | 'GetAccountSummary'
  | 'GetPolicy'
  | 'GetPolicyVersion'
  | 'GetRole'
  | 'GetRolePolicy'
  | 'ListPolicyVersions'
  | 'ListRolePolicies'
  | 'PutRolePolicy'

/** AWS's names for what would be answered alike however often it is asked, in the words that whoever asked may read. */
const refusals: Readonly<Record<string, string>> = {
  DeleteConflict: 'it is in use',
  LimitExceeded: 'there is no room for it',
  NoSuchEntity: 'there is no such role or policy',
  MalformedPolicyDocument: 'the policy is not one',
  PackedPolicyTooLarge: 'the session policy is too large once it is packed, with the tags where session_tags is on: the grant has to allow less',
  ValidationError: 'a value is not allowed, such as a longer session than the role gives',
  RegionDisabled: 'the account does not use this Region',
  InvalidIdentityToken: 'the account has no OIDC provider for `public_url` and this audience, or does not find the key in its JWK set',
  IDPRejectedClaim: 'AWS does not take the token that the broker signed: look at its clock',
  IDPCommunicationError: 'AWS cannot read the JWK set of `public_url`',
}

/** How AWS names the action that was refused (IAM User Guide, "Troubleshoot access denied error messages"). Mended elsewhere than any other AccessDenied. */
const notTagging = /not authorized to perform: sts:TagSession\b/
const untagged =
  'session_tags is on, and the role lets the broker assume it but not tag the session: its trust policy and the broker need sts:TagSession'

/** Names for what is wrong with the broker's own credentials: everything waits for those, and the grant is not to blame. */
const ownCredentials: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredToken',
  'InvalidClientTokenId',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
])

/** Names for what is only so at this moment. IAM says so where somebody else changes the same thing. */
const passing: ReadonlySet<string> = new Set(['ConcurrentModification', 'EntityTemporarilyUnmodifiable'])

/** Errors of a connection that never came to be: nothing was sent on it. */
const neverSent: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/**
 * An error of the SDK as the house knows it. Its message is dropped, for it names accounts, roles and sessions. Names are compared without the suffix
 * `Exception`, which the SDK adds to some of them (reference: STS API, "Common errors").
 */
export function faultOf(provider: string, action: AwsAction, error: unknown): ProviderError {
  // The broker's own credentials could not be had, so AWS was not asked.
  if (error instanceof ProviderError) return error
  const { name: given = '', message = '', code, $metadata } = error as Partial<Error> & { code?: string; $metadata?: { httpStatusCode?: number } }
  const name = given.replace(/Exception$/, '')
  const status = $metadata?.httpStatusCode
  const say = (fault: ProviderFault, why: string, minted: 'no' | 'maybe'): ProviderError =>
    new ProviderError(fault, `${provider} did not answer ${action}: ${why}`, minted, error)

  if (ownCredentials.has(given) || ownCredentials.has(name))
    return say('unavailable', "the broker's own AWS credentials are missing or refused", 'no')
  if (/^Throttl|^TooManyRequests|^RequestLimitExceeded/.test(name)) return say('unavailable', 'AWS throttles the broker', 'no')
  if (passing.has(name)) return say('unavailable', 'it is being changed by somebody else', 'no')
  if (name === 'AccessDenied' && notTagging.test(message)) return say('refused', untagged, 'no')
  if (name === 'AccessDenied') return say('refused', whyDenied(action), 'no')
  const refusal = refusals[name]
  if (refusal !== undefined) return say('refused', refusal, 'no')
  if (status !== undefined && status >= 400 && status < 500) return say('refused', `status ${status}`, 'no')
  if (status !== undefined && status >= 500) return say('unavailable', `status ${status}`, 'maybe')
  if (code !== undefined && neverSent.has(code)) return say('unavailable', 'it could not be reached', 'no')
  if (name === 'TimeoutError' || name === 'AbortError') return say('timed_out', 'it gave no answer in time', 'maybe')
  return say('unavailable', 'the connection was lost', 'maybe')
}

const whyDenied = (action: AwsAction): string =>
  action === 'AssumeRole' ? 'the role does not let the broker assume it, or the broker may not ask' : 'the broker may not ask'

/** AWS's name for what came of a request, without the suffix `Exception`: for what a name alone decides. Empty where there is none. */
export const nameOf = (error: unknown): string => {
  const given = error instanceof ProviderError ? error.cause : error
  return ((given as { name?: string } | undefined)?.name ?? '').replace(/Exception$/, '')
}

/** Whether AWS says that a policy of the role, or of its boundary, denies what was asked, and not only that nothing allows it. */
export const isExplicitDeny = (error: unknown): boolean => {
  const given = error instanceof ProviderError ? error.cause : error
  const { message = '' } = (given ?? {}) as { message?: string }
  return nameOf(error) === 'AccessDenied' && /explicit deny in an? (identity-based policy|permissions boundary)/.test(message)
}
