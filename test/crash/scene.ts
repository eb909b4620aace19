import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { importJWK, type JWK, SignJWT } from 'jose'
import { type Lab, startLab } from '../support/lab.ts'
import { audience } from '../support/program.ts'
import { wireHttp } from '../support/tripwire.ts'
import { setStage, type Stage } from './stage.ts'

/** A stage before the lab. */
export interface Scene extends Stage {
  readonly lab: Lab
  /** Signs as the agent `once`, whose issuer's tokens are accepted once. */
  spendable(): Promise<string>
}

/** Has the key of the local issuer, under a name of its own. */
const once = 'urn:once'
const issuers = `  - { name: once, profile: oidc, issuer: "${once}", keys: ./jwks.json, replay: single-use }`

const agents = `
  once: { issuer: once, match: { sub: "agent:once" }, owner: owner@example.com, groups: [robots] }
  small: { issuer: local, match: { sub: "agent:small" }, owner: owner@example.com, groups: [robots], max_live_leases: 1 }
`

export async function openScene(): Promise<Scene> {
  const lab = await startLab()
  const stage = await setStage(async (tripwire) => {
    const wire = await wireHttp(lab.url, tripwire)
    return {
      site: { lab: wire.url, other: wire.url, issuers, agents },
      alive: async () => (await lab.alive()).map(({ lease }) => lease),
      lingers: 'false',
      secrets: [],
      clear: () => lab.clear(),
      stop: async () => void (await Promise.all([lab.stop(), wire.stop()])),
    }
  })
  const read = async (file: string): Promise<unknown> => JSON.parse(await readFile(path.join(stage.folder, file), 'utf8'))
  const key = await importJWK((await read('issuer.json')) as JWK, 'ES256')
  const { keys } = (await read('jwks.json')) as { keys: { kid: string }[] }
  const header = { alg: 'ES256', kid: keys[0]!.kid, typ: 'JWT' }
  return {
    ...stage,
    lab,
    spendable: () =>
      new SignJWT({ iss: once, sub: 'agent:once', aud: audience, jti: randomUUID() })
        .setProtectedHeader(header)
        .setIssuedAt()
        .setExpirationTime('50m')
        .sign(key),
  }
}
