import { createRemoteJWKSet, decodeJwt, errors, type JWTPayload, jwtVerify } from 'jose'
import type { Account, Issuer } from './account.ts'
import { whyNot } from './evaluate.ts'
import type { Form } from './query.ts'
import { invalid, Refusal } from './refusal.ts'
import { named, sessionPolicies } from './session-parameters.ts'
import { arnOf, credentialsOf, packedSize, sizeOf, startSession, userIdOf } from './sessions.ts'
import type { Xml } from './xml.ts'

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
  const context = new Map([
    ['aws:currenttime', [new Date(account.now()).toISOString()]],
    ['aws:federatedprovider', [issuer.arn]],
    ['sts:rolesessionname', [name]],
    [`${host}:sub`.toLowerCase(), [String(claims.sub)]],
    [`${host}:aud`.toLowerCase(), [claims.aud ?? []].flat()],
  ])
  const rights = { root: false, identity: [], boundary: undefined, session: [], names: new Map([[issuer.arn, 'exact' as const]]) }
  const ask = { action: 'sts:AssumeRoleWithWebIdentity', resource: roleArn, context, resourceMustAllow: true }
  if (!role || whyNot(rights, { ...ask, resourcePolicy: role.trust.at(account.now()) }))
    throw new Refusal('AccessDenied', 'Not authorized to perform sts:AssumeRoleWithWebIdentity', 403)
  if (asked !== undefined && asked > role.maxDuration)
    throw invalid('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.')

  const issuedAt = account.now()
  const expiresAt = issuedAt + (asked ?? 3600) * 1000
  const session = startSession(account, {
    role,
    name,
    issuedAt,
    expiresAt,
    layers,
    tags: new Map(),
    transitive: [],
    sourceIdentity: undefined,
    narrowed: 0,
    packed: packedSize(texts),
  })
  return {
    AssumedRoleUser: { AssumedRoleId: userIdOf(session), Arn: arnOf(account, session) },
    Credentials: credentialsOf(session),
    SubjectFromWebIdentityToken: claims.sub,
    Audience: [claims.aud].flat()[0],
    Provider: issuer.arn,
    ...sizeOf(session),
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
