import { createRemoteJWKSet, decodeJwt, errors, type JWTPayload, jwtVerify } from 'jose'
import type { Account, Issuer } from './account.ts'
import { whyNot } from './evaluate.ts'
import type { Form } from './query.ts'
import { invalid, Refusal } from './refusal.ts'
import { checkedTags, named, sessionPolicies } from './session-parameters.ts'
import { arnOf, credentialsOf, packedSize, sizeOf, startSession, userIdOf } from './sessions.ts'
import type { Xml } from './xml.ts'

/** Claims by which a token brings tags and a source identity (IAM User Guide, "Pass session tags in AWS STS" and "Monitor and control actions taken with assumed roles"). */
const [tagsClaim, sourceIdentityClaim] = ['https://aws.amazon.com/tags', 'https://aws.amazon.com/source_identity']

/**
 * Nobody signs this call: a token of an issuer that the account knows says who asks.
 * @throws Refusal InvalidIdentityToken, ExpiredTokenException, IDPRejectedClaim, IDPCommunicationError, AccessDenied
 */
export async function assumeRoleWithWebIdentity(account: Account, form: Form): Promise<Xml> {
  const roleArn = form.text('RoleArn')
  const name = form.matching('RoleSessionName', 2, 64, named) ?? form.text('RoleSessionName')
  const asked = form.number('DurationSeconds', 900, 43_200)
  const { layers, texts } = sessionPolicies(account, form)
  const token = form.matching('WebIdentityToken', 4, 20_000, /^\S*$/) ?? form.text('WebIdentityToken')
  const { issuer, claims } = await verify(account, token)

  const role = [...account.roles.values()].find(({ arn }) => arn === roleArn)
  const host = issuer.arn.replace(/^.*?oidc-provider\//, '')
  const { tags, transitive, sourceIdentity } = broughtBy(claims)
  const context = new Map([
    ['aws:currenttime', [new Date(account.now()).toISOString()]],
    ['aws:federatedprovider', [issuer.arn]],
    ['sts:rolesessionname', [name]],
    [`${host}:sub`.toLowerCase(), [String(claims.sub)]],
    [`${host}:aud`.toLowerCase(), [claims.aud ?? []].flat()],
    ...(sourceIdentity === undefined ? [] : [['sts:sourceidentity', [sourceIdentity]] as const]),
    ...(tags.size === 0 ? [] : [['aws:tagkeys', [...tags.keys()]] as const]),
    ...[...tags].map(([key, value]) => [`aws:requesttag/${key.toLowerCase()}`, [value]] as const),
  ])
  const rights = { root: false, identity: [], boundary: undefined, session: [], names: new Map([[issuer.arn, 'exact' as const]]) }
  const needed = [
    'AssumeRoleWithWebIdentity',
    ...(tags.size > 0 ? ['TagSession'] : []),
    ...(sourceIdentity === undefined ? [] : ['SetSourceIdentity']),
  ]
  for (const action of needed.map((name) => `sts:${name}`)) {
    const ask = { action, resource: roleArn, context, resourceMustAllow: true }
    if (!role || whyNot(rights, { ...ask, resourcePolicy: role.trust.at(account.now()) }))
      throw new Refusal('AccessDenied', `Not authorized to perform ${action}`, 403)
  }
  if (asked !== undefined && asked > role!.maxDuration)
    throw invalid('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.')

  const issuedAt = account.now()
  const expiresAt = issuedAt + (asked ?? 3600) * 1000
  const session = startSession(account, {
    role: role!,
    name,
    parent: undefined,
    issuedAt,
    expiresAt,
    layers,
    tags,
    transitive,
    sourceIdentity,
    narrowed: 0,
    packed: packedSize([...texts, ...[...tags].flat()]),
  })
  return {
    AssumedRoleUser: { AssumedRoleId: userIdOf(session), Arn: arnOf(account, session) },
    Credentials: credentialsOf(session),
    SubjectFromWebIdentityToken: claims.sub,
    Audience: [claims.aud].flat()[0],
    Provider: issuer.arn,
    SourceIdentity: sourceIdentity,
    ...sizeOf(session),
  }
}

/** @throws Refusal InvalidIdentityToken for claims that are not as AWS wants them */
function broughtBy(claims: JWTPayload): { tags: Map<string, string>; transitive: string[]; sourceIdentity: string | undefined } {
  const { [tagsClaim]: brought = {}, [sourceIdentityClaim]: sourceIdentity } = claims
  const { principal_tags: tags = {}, transitive_tag_keys: transitive = [] } = brought as { principal_tags?: object; transitive_tag_keys?: string[] }
  const given = Object.entries(tags).map(([key, value]: [string, unknown]) => [key, [value].flat()] as const)
  if (given.some(([, values]) => values.length !== 1 || typeof values[0] !== 'string'))
    throw new Refusal('InvalidIdentityToken', 'The value of a principal tag must be a list of one.')
  if (sourceIdentity !== undefined && !(typeof sourceIdentity === 'string' && named.test(sourceIdentity) && /^.{2,64}$/.test(sourceIdentity)))
    throw new Refusal('InvalidIdentityToken', 'The source identity is not valid.')
  return {
    tags: checkedTags(given.map(([key, values]) => [key, values[0] as string])),
    transitive: transitive.map((key) => key.toLowerCase()),
    sourceIdentity,
  }
}

async function verify(account: Account, token: string): Promise<{ issuer: Issuer; claims: JWTPayload }> {
  const issuer = [...account.issuers.values()].find(({ url }) => url === issuerOf(token))
  if (!issuer) throw new Refusal('InvalidIdentityToken', 'No OpenIDConnect provider found in your account for the issuer of this token')
  const keys = createRemoteJWKSet(await keysOf(issuer))
  try {
    const { payload: claims } = await jwtVerify(token, keys, {
      issuer: issuer.url,
      audience: [...issuer.audiences],
      currentDate: new Date(account.now()),
      requiredClaims: ['exp', 'sub'],
    })
    return { issuer, claims }
  } catch (error) {
    if (error instanceof errors.JWTExpired) throw new Refusal('ExpiredTokenException', 'Token expired')
    if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'aud')
      throw new Refusal('InvalidIdentityToken', 'Incorrect token audience')
    if (error instanceof errors.JWTClaimValidationFailed) throw new Refusal('IDPRejectedClaim', error.message, 403)
    if (notTrusted.some((kind) => error instanceof kind)) throw new Refusal('InvalidIdentityToken', "Couldn't verify the signature of the token")
    throw unreachable()
  }
}

const { JWSSignatureVerificationFailed, JWKSNoMatchingKey, JWSInvalid, JWTInvalid, JOSEAlgNotAllowed, JOSENotSupported } = errors
const notTrusted = [JWSSignatureVerificationFailed, JWKSNoMatchingKey, JWSInvalid, JWTInvalid, JOSEAlgNotAllowed, JOSENotSupported]

function issuerOf(token: string): string | undefined {
  try {
    return decodeJwt(token).iss
  } catch {
    throw new Refusal('InvalidIdentityToken', 'The ID Token provided is not a valid JWT.')
  }
}

async function keysOf(issuer: Issuer): Promise<URL> {
  try {
    const answer = await fetch(`${issuer.url}/.well-known/openid-configuration`, { signal: AbortSignal.timeout(5000) })
    const { jwks_uri: keys } = (await answer.json()) as { jwks_uri: string }
    return new URL(keys)
  } catch {
    throw unreachable()
  }
}

const unreachable = () => new Refusal('IDPCommunicationError', "Couldn't retrieve verification key from your identity provider")
