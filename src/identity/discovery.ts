import { z } from 'zod'
import { fetchJson } from './fetch.ts'
import { isKeyAddress, type Rules } from './issuer.ts'

const documentShape = z.looseObject({ issuer: z.string(), jwks_uri: z.string() })

/** Where the issuer says that its keys are (OpenID Connect Discovery 1.0, section 4). @throws Error when it is not the issuer's to say */
export async function discover(rules: Rules, stop: AbortSignal): Promise<string> {
  const issuer = rules.issuer ?? ''
  const document = await fetchJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, rules.allowPrivate, stop)
  const { data } = documentShape.safeParse(document)
  if (!data) throw new Error('the discovery document has no issuer or no jwks_uri')
  const address = data.jwks_uri
  if (data.issuer !== issuer) throw new Error('the discovery document is of another issuer')
  if (!isKeyAddress(address, rules)) throw new Error('jwks_uri is not an https URL')
  // Elsewhere would be somebody else's to answer for. Where it is so on purpose (Google), the address stands in the configuration.
  if (new URL(address).host !== new URL(issuer).host) throw new Error('jwks_uri is on another host than the issuer: configure its address as keys')
  return address
}
