import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { openLocalIssuer } from '../../../src/identity/local-issuer.ts'

/** The configuration of a broker that is never started, for `mayfly provider check`: its catalogue is what is examined, and its policies permit nothing. */
export interface CheckSite {
  readonly folder: string
  /** Writes the configuration anew. @param provider settings of the provider `vault` @returns its file */
  configure(provider: object): Promise<string>
  remove(): Promise<void>
}

/** @param grants of the provider `vault`, as lines of YAML below `grants:` */
export async function makeCheckSite(grants: string): Promise<CheckSite> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-check-'))
  const write = (file: string, text: string): Promise<void> => writeFile(path.join(folder, file), text)
  const { jwks } = await openLocalIssuer(path.join(folder, 'issuer.json'))
  await mkdir(path.join(folder, 'policies'))
  await write('jwks.json', JSON.stringify(jwks))
  await write('policies/nobody.cedar', '@id("nobody")\nforbid(principal, action, resource);\n')
  await write('catalogue.yaml', `agents: {}\nkinds: {}\ngrants:\n${grants}`)
  return {
    folder,
    async configure(provider) {
      await write('mayfly.yaml', configuration({ name: 'vault', kind: 'vault', token_role: 'mayfly-task', ...provider }))
      return path.join(folder, 'mayfly.yaml')
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

const configuration = (provider: object): string => `
public_url: http://127.0.0.1:7420
listen: { host: 127.0.0.1, port: 7420 }
store: { embedded: ./data }
catalogue: ./catalogue.yaml
policies: ./policies
identity: [{ name: local, profile: oidc, issuer: "urn:mayfly:local-issuer", keys: ./jwks.json }]
providers:
  - { name: tokens, kind: jwt }
  - ${JSON.stringify(provider)}
`
