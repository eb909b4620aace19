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

/**
 * How STS says that there are no children to be had: it does not know the action, as in a Region or a partition that is behind, or somebody's policy
 * denies it. Whether it has to be allowed anywhere AWS does not say.
 */
const unsupported: ReadonlySet<string> = new Set(['AccessDenied', 'InvalidAction', 'UnknownOperation'])

/** How STS says that the session that signed has ended, or ends before the child would. */
const ended: ReadonlySet<string> = new Set(['ExpiredToken', 'InsufficientSessionLifetime', 'InvalidClientTokenId', 'InvalidSubjectCredentials'])

/** Names for what is wrong with the broker's own credentials: everything waits for those, and the grant is not to blame. */
const ownCredentials: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredToken',
  'InvalidClientTokenId',
  'SignatureDoesNotMatch',
  'UnrecognizedClient',
])

/** Names for what is only so at this moment. IAM says so where somebody else changes the same thing. */
const passing: ReadonlySet<string> = new Set(['ConcurrentModification', 'EntityTemporarilyUnmodifiable'])

/** Ours, where the SDK was given more than is read. */
export const tooLarge = 'AnswerTooLarge'

/** Errors of a connection that never came to be: nothing was sent on it. */
const neverSent: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** What is kept of an error of the SDK. Its response leads to the request, whose headers hold the token of the session that signed. */
interface Answer {
  /** Without the suffix `Exception`, which the SDK adds to some (reference: STS API, "Common errors"). */
  readonly name: string
  /** Of HTTP; undefined where there was no answer. */
  readonly status: number | undefined
  /** Of the connection. */
  readonly code: string | undefined
  /** Whether AWS says that a policy of the role, or of its boundary, denies what was asked, and not only that nothing allows it. */
  readonly explicit: boolean
}

function answerOf(error: unknown): Answer {
  const { name = '', message = '', code, $metadata } = error as Partial<Error> & { code?: string; $metadata?: { httpStatusCode?: number } }
  const explicit = /explicit deny in an? (identity-based policy|permissions boundary)/.test(message)
  return { name: name.replace(/Exception$/, ''), status: $metadata?.httpStatusCode, code, explicit }
}

/** What an error of GetScopedCredentials says of the session that signed it; undefined where it says nothing of that. */
export function noChildFor({ cause }: ProviderError): 'unsupported' | 'ended' | undefined {
  const { name = '', status } = (cause ?? {}) as Partial<Answer>
  if (unsupported.has(name) || status === 501) return 'unsupported'
  return ended.has(name) ? 'ended' : undefined
}

/** Whether AWS said that the session that signed has ended, or that it does not know it. */
export const isOver = (error: ProviderError): boolean => ended.has(nameOf(error))

/**
 * An error of the SDK as the house knows it. Its message is dropped, for it names accounts, roles and sessions.
 */
export function faultOf(provider: string, action: AwsAction, error: unknown): ProviderError {
  // The broker's own credentials could not be had, so AWS was not asked.
  if (error instanceof ProviderError) return error
  const answer = answerOf(error)
  const { name, status, code } = answer
  const say = (fault: ProviderFault, why: string, minted: 'no' | 'maybe'): ProviderError =>
    new ProviderError(fault, `${provider} did not answer ${action}: ${why}`, minted, { cause: answer })

  if (name === tooLarge) return say('garbage', 'its answer is too large', 'maybe')
  if (ownCredentials.has(name)) return say('unavailable', "the broker's own AWS credentials are missing or refused", 'no')
  if (/^Throttl|^TooManyRequests|^RequestLimitExceeded/.test(name)) return say('unavailable', 'AWS throttles the broker', 'no')
  if (passing.has(name)) return say('unavailable', 'it is being changed by somebody else', 'no')
  if (name === 'AccessDenied' && notTagging.test((error as Error).message)) return say('refused', untagged, 'no')
  if (name === 'AccessDenied') return say('refused', whyDenied(action), 'no')
  const refusal = refusals[name]
  if (refusal !== undefined) return say('refused', refusal, 'no')
  if (status !== undefined && status >= 400 && status < 500) return say('refused', `status ${status}`, 'no')
  // 501: it does not know how to do that, so it has done nothing (RFC 9110 section 15.6.2).
  if (status !== undefined && status >= 500) return say('unavailable', `status ${status}`, status === 501 ? 'no' : 'maybe')
  if (code !== undefined && neverSent.has(code)) return say('unavailable', 'it could not be reached', 'no')
  if (name === 'TimeoutError' || name === 'AbortError') return say('timed_out', 'it gave no answer in time', 'maybe')
  return say('unavailable', 'the connection was lost', 'maybe')
}

const whyDenied = (action: AwsAction): string =>
  action === 'AssumeRole' ? 'the role does not let the broker assume it, or the broker may not ask' : 'the broker may not ask'

/** AWS's name for what it answered; empty where it gave none. */
export const nameOf = (error: unknown): string => causeOf(error)?.name ?? ''

/** Whether AWS said that a policy of the role, or of its boundary, denies what was asked. */
export const isExplicitDeny = (error: unknown): boolean => nameOf(error) === 'AccessDenied' && causeOf(error)?.explicit === true

const causeOf = (error: unknown): Partial<Answer> | undefined => (error instanceof ProviderError ? (error.cause as Partial<Answer>) : undefined)
