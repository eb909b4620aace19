import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { introspect } from '../tasks/introspect.ts'
import type { Broker } from '../tasks/task.ts'
import { json, problems } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy } from './callable.ts'
import * as contract from './contract.ts'

/** What resource servers need to judge a token that this broker signed. @param publicUrl issuer of these tokens, without a trailing slash */
export function tokenRoutes(broker: Broker, publicUrl: string) {
  return new OpenAPIHono<Env>()
    .openapi(ask, async (c) => {
      const claims = await introspect(broker, c.req.valid('form').token, c.var.gate.audiencesOf(c.var.caller))
      return claims ? c.json({ active: true as const, token_type: 'Bearer' as const, ...claims }, 200) : c.json({ active: false as const }, 200)
    })
    .openapi(keys, async (c) => {
      c.header('cache-control', keysMayAge)
      return c.json({ keys: await signingKeys(broker) }, 200)
    })
    .openapi(metadata, async (c) => {
      c.header('cache-control', keysMayAge)
      const algorithms = (await signingKeys(broker)).map((key) => key['alg']).filter((alg) => typeof alg === 'string')
      const answer: contract.Metadata = {
        issuer: publicUrl,
        jwks_uri: `${publicUrl}/.well-known/jwks.json`,
        introspection_endpoint: `${publicUrl}/introspect`,
        introspection_endpoint_auth_methods_supported: ['bearer'],
        response_types_supported: [],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: [...new Set(algorithms)],
        service_documentation: `${publicUrl}/docs`,
      }
      return c.json(answer, 200)
    })
}

/** Shorter than the time between a new key's publication and its first use, so that nobody meets a token whose key they have not seen. */
const keysMayAge = 'public, max-age=60'

/** The keys of every provider that signs; a key of one is as good as any other's, for all speak for this issuer. */
async function signingKeys(broker: Broker): Promise<Record<string, unknown>[]> {
  const sets = await Promise.all([...broker.targets.values()].map((target) => target.provider.tokens).map(async (tokens) => tokens?.keys() ?? []))
  return sets.flat()
}

const ask = createRoute({
  method: 'post',
  path: '/introspect',
  summary: 'Whether a token that this broker signed is alive (RFC 7662); an audience learns about its own tokens only',
  ...callableBy(['resource_server', 'operator'], 'introspect'),
  request: { body: { required: true, content: { 'application/x-www-form-urlencoded': { schema: contract.IntrospectionRequest } } } },
  responses: { 200: json('Its claims, or that it is not active', contract.Introspection), ...problems },
})

const keys = createRoute({
  method: 'get',
  path: '/.well-known/jwks.json',
  summary: 'Public keys of the tokens that this broker signs',
  responses: { 200: json('A JWK set', contract.KeySet) },
})

const metadata = createRoute({
  method: 'get',
  path: '/.well-known/openid-configuration',
  summary: 'Where keys and introspection are',
  responses: { 200: json('Metadata of the issuer', contract.Metadata) },
})
