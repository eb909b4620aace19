import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import {
  CreateOpenIDConnectProviderCommand,
  CreateRoleCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
  UpdateAssumeRolePolicyCommand,
} from '@aws-sdk/client-iam'
import { AssumeRoleCommand } from '@aws-sdk/client-sts'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/time.ts'
import { awsKind } from '../../../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { openIdentities } from '../../../src/providers/aws-sts/identity.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import type { Minted, Provider, ProviderSurroundings, SignedTokens } from '../../../src/providers/provider.ts'
import { clientsOf } from '../../support/aws/clients.ts'
import { type AwsSite, policyOf, startAwsSite } from '../../support/aws/site.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal
const grant = awsGrant.parse({
  role: 'mayfly/invoices',
  allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }],
})
const web = { identity: { method: 'web_identity' }, minter: 'mayfly-minter' }

describe('the broker as AWS knows it', () => {
  let site: AwsSite
  let keys: string
  /** Where the broker publishes its keys: its own HTTP room in production. */
  let published: Server
  let publicUrl: string
  let tokens: SignedTokens | undefined
  const noticed = vi.fn<NonNullable<ProviderSurroundings['noticed']>>()

  beforeEach(async () => {
    site = await startAwsSite()
    keys = await mkdtemp(join(tmpdir(), 'mayfly-aws-identity-'))
    published = createServer((request, response) => void publish(request.url!).then((body) => response.end(JSON.stringify(body))))
    await new Promise<void>((resolve) => published.listen(0, '127.0.0.1', resolve))
    publicUrl = `http://127.0.0.1:${(published.address() as AddressInfo).port}`
    tokens = undefined
    noticed.mockReset()
    for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
    // Nothing of this machine is found where the environment names no key.
    for (const name of ['AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE']) vi.stubEnv(name, '/dev/null')
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true')
  })
  afterEach(async () => {
    published.closeAllConnections()
    published.close()
    await site.peer.stop()
    await rm(keys, { recursive: true })
    vi.unstubAllEnvs()
  })

  const publish = async (url: string): Promise<object> =>
    url.endsWith('jwks.json') ? { keys: await tokens!.keys() } : { issuer: publicUrl, jwks_uri: `${publicUrl}/.well-known/jwks.json` }

  const settingsWith = (changes: object) =>
    awsSettings.parse({
      mode: 'direct',
      region: site.peer.region,
      account: site.peer.account,
      endpoint: site.peer.url,
      external_id: site.externalId,
      ...changes,
    })

  async function connect(changes: object = {}, surroundings: Partial<ProviderSurroundings> = {}): Promise<Provider> {
    const provider = await awsKind.connect('aws', settingsWith(changes), { publicUrl, keys, clock: systemClock, noticed, ...surroundings })
    tokens = provider.tokens
    return provider
  }

  const mint = (provider: Provider): Promise<Minted> => provider.mint(reservationOf(grant), async () => {}, patient)
  const called = (action: string) => site.peer.calls.filter((call) => call.action === action)

  /** A role of the broker's own that may assume those of tasks, and that they trust, beside the user that the site has. */
  async function makeMinter(principal: object, action: string, condition?: object): Promise<void> {
    const { iam } = site.owner
    const trust = { Effect: 'Allow', Principal: principal, Action: action, ...(condition && { Condition: condition }) }
    await iam.send(new CreateRoleCommand({ RoleName: 'mayfly-minter', AssumeRolePolicyDocument: policyOf(trust) }))
    const may = { Effect: 'Allow', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'], Resource: 'arn:aws:iam::*:role/mayfly/*' }
    await iam.send(new PutRolePolicyCommand({ RoleName: 'mayfly-minter', PolicyName: 'mint', PolicyDocument: policyOf(may) }))
    const task = {
      Effect: 'Allow',
      Principal: { AWS: `arn:aws:iam::${site.peer.account}:role/mayfly-minter` },
      Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'],
      Condition: { StringEquals: { 'sts:ExternalId': site.externalId } },
    }
    await iam.send(new UpdateAssumeRolePolicyCommand({ RoleName: 'invoices', PolicyDocument: policyOf(task) }))
    const user = { Effect: 'Allow', Action: 'sts:AssumeRole', Resource: `arn:aws:iam::${site.peer.account}:role/mayfly-minter` }
    await iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'become', PolicyDocument: policyOf(user) }))
  }

  const asUser = () => ({ AWS: `arn:aws:iam::${site.peer.account}:user/mayfly` })

  async function makeIssuer(audience = 'sts.amazonaws.com', subject = 'mayfly:aws:minter'): Promise<void> {
    const host = publicUrl.replace('http://', '')
    await site.owner.iam.send(new CreateOpenIDConnectProviderCommand({ Url: publicUrl, ClientIDList: [audience] }))
    await makeMinter({ Federated: `arn:aws:iam::${site.peer.account}:oidc-provider/${host}` }, 'sts:AssumeRoleWithWebIdentity', {
      StringEquals: { [`${host}:aud`]: audience, [`${host}:sub`]: subject },
    })
  }

  describe('through the default chain', () => {
    test('takes its role of the minter once, and assumes the roles of tasks with that', async () => {
      await makeMinter(asUser(), 'sts:AssumeRole')
      const provider = await connect({ minter: 'mayfly-minter' })
      await Promise.all([mint(provider), mint(provider)])
      expect(called('AssumeRole').map(({ key }) => key?.slice(0, 4))).toEqual(['AKIA', 'ASIA', 'ASIA'])
    })

    test('is refused by the roles of tasks where it is not the minter', async () => {
      await makeMinter(asUser(), 'sts:AssumeRole')
      await expect(mint(await connect())).rejects.toMatchObject({ fault: 'refused', minted: 'no' })
    })

    test.each([
      ['is not trusted', 'mayfly/invoices', undefined],
      ['is throttled', 'mayfly-minter', 'throttles'],
      ['meets an STS that fails', 'mayfly-minter', 'fails'],
      ['meets an STS that answers a megabyte', 'mayfly-minter', 'pads the answer'],
    ] as const)('mints nothing for certain where its own role %s, and no grant is to blame', async (_, minter, fault) => {
      await makeMinter(asUser(), 'sts:AssumeRole')
      if (fault) site.peer.faults.next('AssumeRole', fault, 3)
      const error = await mint(await connect({ minter })).catch((failure: Error) => failure)
      expect(error).toMatchObject({ fault: 'unavailable', minted: 'no', message: expect.stringContaining('its own role of the minter') })
      expect((error as Error).message).not.toContain(site.peer.account)
    })

    test('says once and aloud that its key never ends, in development', async () => {
      const provider = await connect()
      await mint(provider)
      await mint(provider)
      expect(noticed.mock.calls).toEqual([['aws', 'warn', 'static_key', { action: 'used' }]])
      expect(JSON.stringify(noticed.mock.calls)).not.toContain('AKIA')
    })

    test.each([[{}], [{ minter: 'mayfly-minter' }]])('is not used with such a key in production: %o', async (settings) => {
      const provider = await connect(settings, { production: true })
      await expect(mint(provider)).rejects.toMatchObject({ fault: 'unavailable', minted: 'no', message: expect.stringContaining('without an end') })
      await expect(provider.check(patient)).rejects.toMatchObject({ fault: 'unavailable' })
      expect(called('AssumeRole')).toEqual([])
      expect(noticed.mock.calls).toEqual([['aws', 'error', 'static_key', { action: 'refused' }]])
    })

    test('has nothing to say of a session', async () => {
      await useSession()
      await mint(await connect({}, { production: true }))
      expect(noticed).not.toHaveBeenCalled()
    })

    test('is told that a role itself gives an hour at most, and not cut to that', async () => {
      const longer = { longest_session: '2h' }
      await (await connect(longer)).check(patient)
      await useSession()
      await expect((await connect(longer)).check(patient)).rejects.toMatchObject({
        fault: 'refused',
        message: expect.stringContaining('longest_session'),
      })
      await (await connect()).check(patient)
    })

    test('is unavailable where the chain finds nothing', async () => {
      for (const name of Object.keys(site.environment)) vi.stubEnv(name, undefined)
      await expect(mint(await connect())).rejects.toMatchObject({ fault: 'unavailable', minted: 'no' })
    })
  })

  /** The environment has a session of a role that may mint, as on a platform of AWS. */
  async function useSession(): Promise<void> {
    await makeMinter(asUser(), 'sts:AssumeRole')
    const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = site.environment
    const user = clientsOf(site.peer, { accessKeyId: accessKeyId!, secretAccessKey: secretAccessKey! })
    const RoleArn = `arn:aws:iam::${site.peer.account}:role/mayfly-minter`
    const { Credentials } = await user.sts.send(new AssumeRoleCommand({ RoleArn, RoleSessionName: 'platform' }))
    vi.stubEnv('AWS_ACCESS_KEY_ID', Credentials!.AccessKeyId)
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', Credentials!.SecretAccessKey)
    vi.stubEnv('AWS_SESSION_TOKEN', Credentials!.SessionToken)
  }

  describe('as an OIDC provider', () => {
    beforeEach(() => {
      for (const name of Object.keys(site.environment)) vi.stubEnv(name, undefined)
    })

    test('needs no key: it signs for itself, and AWS finds the key in the set that it publishes', async () => {
      await makeIssuer()
      const provider = await connect(web, { production: true })
      await mint(provider)
      await mint(provider)
      expect(called('AssumeRoleWithWebIdentity')).toEqual([{ service: 'sts', action: 'AssumeRoleWithWebIdentity', key: undefined }])
      expect(await provider.tokens!.keys()).toMatchObject([{ alg: 'ES256' }])
      expect(noticed).not.toHaveBeenCalled()
    })

    test.each([
      ['another audience', 'somebody.else', 'mayfly:aws:minter', {}],
      ['the other of its two subjects', 'sts.amazonaws.com', 'mayfly:aws:revoker', {}],
      ['the subject of another provider', 'sts.amazonaws.com', 'mayfly:other:minter', {}],
    ])('is not let in where the role expects %s', async (_, audience, subject) => {
      await makeIssuer(audience, subject)
      await expect(mint(await connect(web))).rejects.toMatchObject({ fault: 'unavailable', minted: 'no' })
    })

    test('is not let in where its keys cannot be read', async () => {
      await makeIssuer()
      const provider = await connect(web)
      published.closeAllConnections()
      published.close()
      await expect(mint(provider)).rejects.toMatchObject({ fault: 'unavailable', message: expect.stringContaining('JWK set') })
    })

    test('has no role for what none was configured for', async () => {
      const { revoker } = await openIdentities('aws', settingsWith(web), { publicUrl, keys, clock: systemClock }, () => {})
      await expect(revoker()).rejects.toMatchObject({ fault: 'unavailable' })
    })

    test('shows each token once, for a minute or some, with a subject for each identity', async () => {
      const shown: URLSearchParams[] = []
      const sts = createServer((request, response) => {
        void text(request).then((body) => {
          shown.push(new URLSearchParams(body))
          response.writeHead(403).end()
        })
      })
      await new Promise<void>((resolve) => sts.listen(0, '127.0.0.1', resolve))
      let now = Date.parse('2026-11-26T12:00:00Z')
      const endpoint = `http://127.0.0.1:${(sts.address() as AddressInfo).port}`
      const settings = settingsWith({ ...web, revoker: 'mayfly-revoker', endpoint, identity: { method: 'web_identity', lifetime: '90s' } })
      const { minter, revoker } = await openIdentities('aws', settings, { publicUrl, keys, clock: () => now }, () => {})
      await expect(minter()).rejects.toMatchObject({ fault: 'unavailable' })
      now += 1_000
      await expect(minter()).rejects.toMatchObject({ fault: 'unavailable' })
      await expect(revoker()).rejects.toMatchObject({ fault: 'unavailable' })
      sts.closeAllConnections()
      sts.close()

      const claims = shown.map((form) => decodeJwt(form.get('WebIdentityToken')!))
      expect(claims.map(({ sub }) => sub)).toEqual(['mayfly:aws:minter', 'mayfly:aws:minter', 'mayfly:aws:revoker'])
      expect(new Set(claims.map(({ jti }) => jti)).size).toBe(3)
      for (const { aud, iss, iat, exp } of claims) expect([aud, iss, exp! - iat!]).toEqual(['sts.amazonaws.com', publicUrl, 90])
      expect(decodeProtectedHeader(shown[0]!.get('WebIdentityToken')!).alg).toBe('ES256')
      expect(shown.map((form) => form.get('RoleSessionName'))).toEqual(['mayfly-minter', 'mayfly-minter', 'mayfly-revoker'])
    })
  })

  test.each([
    ['web identity without a role for minting', { identity: { method: 'web_identity' } }, 'minter'],
    ['one role for both', { minter: 'mayfly-one', revoker: 'mayfly-one' }, 'revoker'],
    ['a session longer than a chained one can be', { minter: 'mayfly-minter', longest_session: '2h' }, 'longest_session'],
    ['a token that lives too long', { ...web, identity: { method: 'web_identity', lifetime: '301s' } }, 'identity.lifetime'],
    ['a token that lives too short', { ...web, identity: { method: 'web_identity', lifetime: '59s' } }, 'identity.lifetime'],
    ['a key in the file', { identity: { method: 'static', access_key_id: 'AKIA' } }, 'identity.method'],
  ])('the settings refuse %s', (_, changes, at) => {
    const parsed = awsSettings.safeParse({ region: 'eu-central-1', account: '111122223333', ...changes })
    expect(parsed.error?.issues.map(({ path }) => path.join('.'))).toEqual([at])
  })
})
