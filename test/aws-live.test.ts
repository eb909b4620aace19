import { ListPoliciesCommand, ListRolesCommand } from '@aws-sdk/client-iam'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LiveAccount, openAccount } from './live/account.ts'
import { questions } from './live/questions.ts'
import { clientsOf } from './support/aws/clients.ts'
import { type AwsPeer, startAwsPeer } from './support/aws/peer.ts'

/** What our own AWS is known to answer. The suite runs on an account of AWS where somebody has one; this is so that it is ready on that day. */
const answers: Readonly<Record<string, readonly string[]>> = {
  a: ['without the permission: accepted', 'denied in the session policy: AccessDenied', '200 at'],
  b: ['aws:TokenIssueTime of a child is that of its parent', 'a deny of the parent by age meets the child: true', 'ends 0 s after its parent'],
  c: ['us-east-1: p50', 'eu-central-1: p50'],
  d: ['20 writes at'],
  e: ['2048 characters: accepted', '2049 characters: ValidationError', '4096 characters: ValidationError'],
  f: ['accepted'],
  g: ['explicit deny in an identity-based policy', 'explicit deny in a permissions boundary', 'because no session policy allows', 'accepted'],
  h: ['inline: written in p50', 'boundary: written in p50'],
  i: ['SourceIdentity of the session: agent-1'],
}

describe('the suite for an account of AWS', () => {
  let peer: AwsPeer
  let account: LiveAccount
  const keys = generateKeyPair('ES256')
  const issuer = createServer((request, response) => {
    void keys.then(async ({ publicKey }) => {
      const jwks = { keys: [{ ...(await exportJWK(publicKey)), alg: 'ES256' }] }
      response.end(JSON.stringify(request.url === '/keys' ? jwks : { issuer: url(), jwks_uri: `${url()}/keys` }))
    })
  })
  const url = () => `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`

  beforeAll(async () => {
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true'
    peer = await startAwsPeer()
    peer.faults.propagation = 30
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve))
    account = await openAccount(peer.account, {
      regions: ['us-east-1', 'eu-central-1'],
      rounds: 2,
      look: 5,
      issuer: {
        url: url(),
        sign: async (claims) => await new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256' }).sign((await keys).privateKey),
      },
      standIn: { endpoint: peer.url, credentials: peer.root },
    })
  })
  afterAll(async () => {
    issuer.closeAllConnections()
    issuer.close()
    await peer?.stop()
  })

  test.each(questions)('measures $asks', async ({ asks, measure }) => {
    const found = await measure(account)
    const expected = answers[asks.charAt(1)]!
    expect(found).toHaveLength(expected.length)
    for (const [at, words] of expected.entries()) expect(found![at]).toContain(words)
  })

  test.each([
    ['its own', 'lives', 'a child of a parent that is denied lives on'],
    ['its own', 'is denied', 'a child of a parent that is denied is denied too'],
  ] as const)('tells apart a child whose time is %s and that %s with its parent', async (issueTime, fate, words) => {
    peer.undocumented.issueTimeOfChild = issueTime
    peer.undocumented.childOfDenied = fate
    const found = await questions.find(({ asks }) => asks.startsWith('(b)'))!.measure(account)
    expect(found!.slice(0, 2)).toEqual(['aws:TokenIssueTime of a child is its own', words])
  })

  test('refuses an account that is not the one that was named', async () => {
    const refused = openAccount('999999999999', account.settings)
    await expect(refused).rejects.toThrow('and 999999999999 is meant')
  })

  test('leaves nothing behind, also of a run that was killed', async () => {
    const { iam } = clientsOf(peer, peer.root)
    const left = async () => [...(await iam.send(new ListRolesCommand({}))).Roles!, ...(await iam.send(new ListPoliciesCommand({}))).Policies!]
    await account.role({ boundary: JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }) })
    // The next one begins by removing what is left.
    await using next = await openAccount(peer.account, account.settings)
    expect(await left()).toEqual([])
    await next.role()
    await next[Symbol.asyncDispose]()
    expect(await left()).toEqual([])
  })
})
