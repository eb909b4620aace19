import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Provider } from 'oidc-provider'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { audience, gateFor, signingKey } from './given.ts'

/** A real issuer: its discovery, its keys, and its access tokens for our audience. */
const key = signingKey('real-1')
const server = createServer()
let issuer: string

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...key.privateKey.export({ format: 'jwk' }), kid: key.kid, alg: 'ES256', use: 'sig' }] },
    clients: [
      {
        client_id: 'invoice-bot',
        client_secret: 'a secret of the test',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        // Without this, a provider that has only an EC key refuses its clients.
        id_token_signed_response_alg: 'ES256',
      },
    ],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (_, resource) => ({
          scope: '',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  })
  const answer = provider.callback()
  server.on('request', (request, response) => void answer(request, response))
})
afterAll(() => new Promise((resolve) => server.close(resolve)))

async function tokenFor(resource: string): Promise<string> {
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('invoice-bot:a+secret+of+the+test').toString('base64')}`, connection: 'close' },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource }),
  })
  expect(answer.status).toBe(200)
  return ((await answer.json()) as { access_token: string }).access_token
}

function gate() {
  const gate = gateFor({ name: 'real', profile: 'oidc', issuer, keys: { discovery: true } })
  // The provider has the machine's clock.
  gate.now = Date.now()
  return gate
}

test('A token of a real OpenID provider is verified by what its discovery says', async () => {
  const { accept, fetches } = gate()
  expect(await accept(await tokenFor(audience))).toMatchObject({
    issuer: 'real',
    subject: 'invoice-bot',
    attributes: { iss: issuer, sub: 'invoice-bot', client_id: 'invoice-bot' },
    token: { kid: 'real-1', alg: 'ES256', jti: expect.any(String) as string },
  })
  expect(fetches).toEqual([{ issuer: 'real', outcome: 'changed' }])
})

test('A token of a real OpenID provider for somebody else is refused', async () => {
  expect(await gate().refusal(await tokenFor('https://other.example.com'))).toEqual({ reason: 'wrong_audience', issuer: 'real' })
})
