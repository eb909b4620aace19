import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Provider } from 'oidc-provider'
import { signingKey } from '../identity/given.ts'

/** A real OpenID provider at which people sign in by choosing who they are. */
export interface PeopleIssuer {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** Lets nobody choose any more: whoever comes is this one. */
  always(subject: string): void
  /** Answers nothing. @returns answers what was asked meanwhile, and all that is asked then */
  hang(): () => void
  stop(): Promise<void>
}

/** Who they are, and in which groups. */
const people: Readonly<Record<string, readonly string[]>> = { ann: ['sec-ops'], rob: ['audit'], eve: [] }

export async function startPeopleIssuer(redirectUri: string): Promise<PeopleIssuer> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const key = signingKey('people-1')
  const [clientId, clientSecret] = ['mayfly-console', 'a secret of the console']
  let subject: string | undefined
  let awake = Promise.resolve()

  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...key.privateKey.export({ format: 'jwk' }), kid: key.kid, alg: 'ES256', use: 'sig' }] },
    clients: [
      {
        client_id: clientId,
        client_secret: clientSecret,
        redirect_uris: [redirectUri],
        grant_types: ['authorization_code'],
        response_types: ['code'],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    pkce: { required: () => true },
    scopes: ['openid', 'groups'],
    claims: { openid: ['sub'], groups: ['groups'] },
    conformIdTokenClaims: false,
    cookies: { keys: ['of a test'] },
    features: { devInteractions: { enabled: false } },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: [...(people[id] ?? [])] }) }),
    interactions: { url: (_, { uid }) => `/choose/${uid}` },
    // Consent was given when the client was registered.
    loadExistingGrant: async (ctx) => {
      const grant = new provider.Grant({ clientId, accountId: ctx.oidc.session!.accountId! })
      grant.addOIDCScope('openid groups')
      await grant.save()
      return grant
    },
  })
  const answer = provider.callback()
  function respond(request: IncomingMessage, response: ServerResponse): void {
    const [, uid, chosen] = /^\/choose\/([\w-]+)(?:\/(\w+))?$/.exec(request.url ?? '') ?? []
    const accountId = chosen ?? subject
    if (uid === undefined) return void answer(request, response)
    if (accountId !== undefined) return void provider.interactionFinished(request, response, { login: { accountId } })
    const choices = Object.keys(people).map((name) => `<li><a href="/choose/${uid}/${name}">${name}</a></li>`)
    response.setHeader('content-type', 'text/html').end(`<!doctype html><title>Who are you?</title><ul>${choices.join('')}</ul>`)
  }
  server.on('request', (request, response) => void awake.then(() => respond(request, response)))

  return {
    issuer,
    clientId,
    clientSecret,
    always: (name) => (subject = name),
    hang() {
      let wake = (): void => {}
      awake = new Promise((resolve) => (wake = resolve))
      return wake
    },
    async stop() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
