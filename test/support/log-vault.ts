import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { SigningKey } from '../../src/base/signing-key.ts'
import { systemClock } from '../../src/base/time.ts'
import { createTarget } from '../../src/providers/target.ts'
import { transitSettings } from '../../src/providers/vault/transit.ts'
import { vaultKind } from '../../src/providers/vault/vault.ts'
import type { Openbao } from './openbao.ts'

const deployed = path.join(import.meta.dirname, '../../deploy/vault')

/**
 * The engine `transit` with the key `mayfly-log`, and a token as docs/vault.md has it for a broker whose log is signed there: of the policies of
 * deploy/vault/mayfly-broker.hcl and mayfly-log.hcl as they stand, and of none besides. As often as you like.
 *
 * @param more a policy besides, for keys of the test's own
 * @returns the file with the token
 */
export async function logVault(vault: Openbao, { file = path.join(vault.folder, 'log-token'), more = [] }: Options = {}): Promise<string> {
  await vault.root('POST', 'sys/mounts/transit', { type: 'transit' })
  await vault.root('POST', 'transit/keys/mayfly-log', { type: 'ed25519' })
  for (const name of ['mayfly-broker', 'mayfly-log']) {
    const policy = await readFile(path.join(deployed, `${name}.hcl`), 'utf8')
    await vault.root('POST', `sys/policies/acl/${name}`, { policy })
  }
  const settings = { policies: ['mayfly-broker', 'mayfly-log', ...more], no_default_policy: true, period: '24h' }
  const { auth } = (await vault.root('POST', 'auth/token/create-orphan', settings)).body
  await writeFile(file, auth.client_token, { mode: 0o600 })
  return file
}

interface Options {
  readonly file?: string
  readonly more?: readonly string[]
}

/** Milliseconds. Nobody waits for them: on a busy machine an answer takes long, and where none comes a test moves the clock. */
export const vaultTimeout = 30_000

interface Asking {
  /** Milliseconds; `vaultTimeout` where absent. */
  readonly timeout?: number
  /** Told of each request. */
  readonly told?: (request: string, outcome: string) => void
}

/** The key `mayfly-log`, unless the settings name another, as a broker has it that was started a moment ago. */
export async function vaultKey(
  { address }: Pick<Openbao, 'address'>,
  tokenFile: string,
  settings: object = {},
  { timeout = vaultTimeout, told = () => {} }: Asking = {},
): Promise<SigningKey> {
  const auth = { method: 'token', token_file: tokenFile }
  const parsed = { ...vaultKind.settings.parse({ address, auth, token_role: 'mayfly-task' }), timeout }
  const surroundings = { publicUrl: 'https://broker.example.com', keys: path.dirname(tokenFile), clock: systemClock }
  const provider = await vaultKind.connect('vault', parsed, { ...surroundings, asked: (_, request, outcome) => told(request, outcome) })
  return createTarget(provider, { clock: systemClock, observe: () => {} }).signingKey(transitSettings.parse({ key: 'mayfly-log', ...settings }))
}
