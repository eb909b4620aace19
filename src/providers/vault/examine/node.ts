import { NoAnswer } from '../../exchange.ts'
import type { Finding } from '../../provider.ts'
import { type Health, healthOf } from '../answers.ts'
import type { VaultAnswer } from '../client.ts'
import { answersFromOldState, orNewer } from '../identity.ts'
import type { VaultSettings } from '../settings.ts'

/** Seconds by which the clocks of broker and Vault may differ: what a database adds to the end of a login. */
const mostApart = 5

/** Why there is no answer at the address, by the code of the error that Node gives. */
const silences: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there. Is it running, and is the port of `address` right?',
  ECONNRESET: 'it cut the connection. Does something else listen there, or does it want the certificate of `mtls`?',
  ENOTFOUND: 'there is no such host. Is the host of `address` right, and does this machine resolve it?',
  EAI_AGAIN: 'the name could not be resolved. Does this machine reach its name server?',
  EHOSTUNREACH: 'no way leads there from this machine. Look at routes and firewalls.',
  ENETUNREACH: 'no way leads there from this machine. Look at routes and firewalls.',
  CERT_HAS_EXPIRED: 'its certificate is over, or the clock of this machine is wrong.',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet, or the clock of this machine is wrong.',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name. Use the name in the certificate, or have one made for this one.',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'nobody that this machine trusts signed its certificate. Name the authority in `ca`.',
  SELF_SIGNED_CERT_IN_CHAIN: 'nobody that this machine trusts signed its certificate. Name the authority in `ca`.',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'nobody that this machine trusts signed its certificate. Name the authority in `ca`.',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'nobody that this machine trusts signed its certificate. Name the authority in `ca`.',
  EPROTO: 'it does not speak TLS there. Is it http that listens, or another port?',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS there. Is it http that listens, or another port?',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS there. Is it http that listens, or another port?',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'it wants a client certificate. Name one under `mtls`.',
}

/** Words for an address that gave no answer. */
export function silence(address: string, error: unknown): Finding {
  const code = error instanceof NoAnswer && error.cause instanceof Error && 'code' in error.cause ? String(error.cause.code) : ''
  const reason = silences[code] ?? (error instanceof NoAnswer ? `${error.message}${code === '' ? '' : ` (${code})`}.` : 'it could not be asked.')
  return { level: 'fault', subject: 'address', message: `${address} does not answer: ${reason} Nothing else could be looked at` }
}

/**
 * The node behind the address. A fault among these means that nothing else can be asked of it.
 *
 * @param namespace where the broker is to be, if not outside of namespaces
 * @param answer of sys/health
 * @param now milliseconds since 1970, by our clock, when it was given
 */
export function judgeNode({ address, namespace }: Pick<VaultSettings, 'address' | 'namespace'>, answer: VaultAnswer, now: number): Finding[] {
  const health = healthOf(answer)
  if (!health) {
    const hint = answer.status === 400 && address.startsWith('http:') ? ' Does it listen for https?' : ' Is it another server, or a proxy before it?'
    return [fault('address', `${address} answers with status ${answer.status}, and not as Vault or OpenBao do.${hint}`)]
  }
  if (!health.initialized) return [fault('node', `${address} is not initialized: run \`bao operator init\``)]
  if (health.sealed) return [fault('node', `${address} is sealed: unseal it. Nothing else could be looked at`)]
  return [roleOf(address, health), ...namespacesOf(namespace, health), ...clocksOf(health, now)]
}

function roleOf(address: string, health: Health): Finding {
  const { standby, version } = health
  const old = answersFromOldState(health)
  if (standby && old)
    return fault(
      'node',
      `${address} is a standby of version ${version}, which answers from old state: let \`address\` lead to the active node${orNewer(health)}`,
    )
  if (old)
    return {
      level: 'warning',
      subject: 'node',
      message: `${address} is active, of version ${version}, whose standbys answer from old state: \`address\` must always lead to the active node. Run 2.6.2 or newer`,
    }
  const message = `${address} is unsealed and ${standby ? 'a standby' : 'active'}, version ${version}`
  if (!standby) return { level: 'ok', subject: 'node', message }
  return {
    level: 'warning',
    subject: 'node',
    message: `${message}: what ends at its deadline is never proven through it. Let \`address\` lead to the active node`,
  }
}

/** The community edition of HashiCorp's Vault reads no namespace in a request, and refuses none. */
function namespacesOf(namespace: string | undefined, { enterprise }: Health): Finding[] {
  if (namespace === undefined || enterprise !== false) return []
  const message = `there are none without Vault Enterprise, so all of it happens outside of ${namespace}: take \`namespace\` away`
  return [{ level: 'warning', subject: 'namespace', message }]
}

function clocksOf({ server_time_utc: theirs }: Health, now: number): Finding[] {
  const apart = theirs - Math.floor(now / 1_000)
  const seconds = Math.abs(apart)
  if (seconds <= mostApart) return [{ level: 'ok', subject: 'clock', message: `within ${mostApart} s of ours` }]
  const message = `${seconds} s ${apart > 0 ? 'ahead of' : 'behind'} ours: let both follow the same time (NTP), or logins end that much too ${apart > 0 ? 'late' : 'early'} where the database goes by it`
  return [{ level: 'warning', subject: 'clock', message }]
}

const fault = (subject: string, message: string): Finding => ({ level: 'fault', subject, message })
