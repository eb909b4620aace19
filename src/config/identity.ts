import { resolve } from 'node:path'
import { z } from 'zod'
import { ifJson } from '../base/json.ts'
import type { Path } from '../base/shape-fault.ts'
import type { YamlFile } from '../base/yaml-file.ts'
import { type Issuer, issuerFaults, type Judged, type KeySettings } from '../identity/issuer.ts'
import { holdsPrivate } from '../identity/jwk.ts'
import { localIssuer } from '../identity/local-issuer.ts'
import { IdentityEntry, List } from './shapes.ts'
import { readText } from './text.ts'

/** @param localKeys public keys of the local issuer, where there is one */
export async function readIdentity(yaml: YamlFile, value: unknown, folder: string, localKeys: object | undefined): Promise<Issuer[]> {
  const list = yaml.parse(List.min(1, 'must have at least one issuer, or nobody could call'), value, ['identity']) ?? []
  const read: { readonly path: Path; readonly issuer: Judged }[] = []
  for (const [index, one] of list.entries()) {
    const path = ['identity', index]
    const entry = yaml.parse(IdentityEntry, one, path)
    if (!entry) continue
    const refuse = (message: string): undefined => {
      yaml.fault([...path, 'keys'], message)
    }
    const keys = localKeys && entry.issuer === localIssuer ? { jwks: localKeys } : await readKeys(entry, folder, refuse)
    read.push({ path, issuer: settingsOf(entry, keys) })
  }
  const faults = issuerFaults(read.map(({ issuer }) => (keysComeLater(issuer) ? { ...issuer, keys: undefined } : issuer)))
  for (const { at, key, message } of faults) yaml.fault([...read[at]!.path, key], message)
  return read.flatMap(({ issuer: { keys, ...same } }) => (keys ? [{ ...same, keys }] : []))
}

/** Those that are pinned are judged when the broker starts. Those of the local issuer come with `mayfly dev`; other commands read the same file and need none. */
const keysComeLater = ({ issuer, keys }: Judged): boolean => keys !== undefined && ('jwks' in keys || ('discovery' in keys && issuer === localIssuer))

/** An address, a file that is read now, or nothing: then the issuer says itself where its keys are. */
async function readKeys({ keys }: IdentityEntry, folder: string, refuse: (message: string) => undefined): Promise<KeySettings | undefined> {
  if (keys === undefined) return { discovery: true }
  return /^[a-z][a-z0-9+.-]*:/i.test(keys) ? { url: keys } : await readKeyFile(resolve(folder, keys), refuse)
}

/** Public keys only: a private one in here was meant for somewhere else, and has been read by too many. */
const KeySet = z.looseObject({
  keys: z
    .array(z.looseObject({ kty: z.string() }))
    .min(1)
    .max(64),
})

async function readKeyFile(file: string, refuse: (message: string) => undefined): Promise<{ jwks: object } | undefined> {
  const text = await readText(file)
  if ('fault' in text) return refuse(text.fault)
  const found = KeySet.safeParse(ifJson(text.found)).data
  if (!found) return refuse('must be a JWK set in JSON, with one key at least')
  if (found.keys.some(holdsPrivate)) return refuse('holds a private key: pin public ones, and replace the one that lies here')
  return { jwks: found }
}

function settingsOf(entry: IdentityEntry, keys: KeySettings | undefined): Judged {
  const { trust_domain: trustDomain, max_lifetime: maxLifetime, allow_http: allowHttp, allow_private: allowPrivate, ...same } = entry
  return { ...same, trustDomain, maxLifetime, allowHttp, allowPrivate, keys }
}
