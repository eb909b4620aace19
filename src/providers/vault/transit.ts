import { z } from 'zod'
import type { SigningKey } from '../../base/signing-key.ts'
import { fromBase64 } from '../../proof/spelling.ts'
import { ProviderError } from '../provider.ts'
import { dataOf, says, unexpected } from './answers.ts'
import type { Identity } from './identity.ts'
import { apiPath, plainName } from './settings.ts'

/** Which key of the engine `transit`. */
export const transitSettings = z.strictObject({
  mount: apiPath.default('transit'),
  key: plainName,
  /** Pinned: left to itself transit signs with the newest version, which is another public key, and so another log. */
  version: z.int().min(1).max(1_000_000).default(1),
})

export type TransitSettings = z.output<typeof transitSettings>

/** `data` of transit/keys/:name, as far as it is read. */
const keyAnswer = z.object({
  type: z.string(),
  derived: z.boolean(),
  exportable: z.boolean(),
  allow_plaintext_backup: z.boolean(),
  keys: z.record(z.string(), z.unknown()),
})

/** What stands there for each version of a key that signs. */
const versionAnswer = z.object({ public_key: z.string() })

/** `data` of transit/sign/:name. */
const signAnswer = z.object({ signature: z.string() })

/**
 * A key of the engine `transit`, whose public half is asked for once.
 *
 * Only a key that cannot leave Vault is taken: whoever copied one could sign another history at leisure, and neither flag can be taken back once it is set.
 * A warning would be read by nobody until then.
 */
export function createTransitKey(name: string, { mount, key, version }: TransitSettings, identity: Identity): SigningKey {
  const unfit = (why: string): ProviderError => new ProviderError('refused', `${name}: the key ${mount}/keys/${key} ${why}`, 'no')
  let known: Buffer | undefined

  async function read(signal: AbortSignal): Promise<Buffer> {
    const answer = await identity.ask({ path: `${mount}/keys/${key}`, request: 'transit/keys' }, signal)
    if (answer.status === 404) throw unfit('does not exist')
    const found = dataOf(answer, keyAnswer)
    if (!found) throw unexpected(name, `word about the key ${mount}/keys/${key}`, answer, 'no')
    if (found.type !== 'ed25519') throw unfit('is not of type ed25519')
    if (found.derived) throw unfit('is derived: it is another key for each context')
    if (found.exportable) throw unfit('is exportable, which cannot be undone: make another')
    if (found.allow_plaintext_backup) throw unfit('may be backed up in plain text, which cannot be undone: make another')
    const raw = fromBase64(versionAnswer.safeParse(found.keys[version]).data?.public_key ?? '')
    if (raw?.length !== 32) throw unfit(`has no version ${version}, or its min_decryption_version hides it`)
    return raw
  }

  return {
    publicKey: async (signal) => (known ??= await read(signal)),
    async sign(message, signal) {
      const body = { input: Buffer.from(message).toString('base64'), key_version: version }
      const answer = await identity.ask({ path: `${mount}/sign/${key}`, body, request: 'transit/sign' }, signal)
      if (says(answer, 'minimum encryption key version'))
        throw unfit(`does not sign with version ${version} any more: its min_encryption_version is higher`)
      const signature = signatureOf(dataOf(answer, signAnswer)?.signature ?? '', version)
      if (!signature) throw unexpected(name, 'signature', answer, 'no')
      return signature
    },
  }
}

/** `vault:v1:` and base64 of the 64 bytes, OpenBao's too. */
function signatureOf(text: string, version: number): Buffer | undefined {
  const prefix = `vault:v${version}:`
  const bytes = text.startsWith(prefix) ? fromBase64(text.slice(prefix.length)) : undefined
  return bytes?.length === 64 ? bytes : undefined
}
