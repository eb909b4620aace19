import { type Finding, ProviderError } from '../../provider.ts'
import { checkAccount } from '../account.ts'
import { isStatic } from '../chain.ts'
import type { Caller } from '../client.ts'
import { bareName } from '../settings.ts'
import type { Examined } from './examine.ts'
import { seen } from './iam.ts'
import { judgeTrust } from './trust.ts'

/** Whom the broker is: two identities of the account, which are not the same, and have no key that never ends. */
export async function examineIdentities(aws: Examined): Promise<Finding[]> {
  const { name, settings, minter } = aws
  let caller: Caller
  try {
    caller = await checkAccount(name, settings, minter, aws.within())
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return [...judgeIssuer(aws), { level: 'fault', subject: 'account', message: error.message }]
  }
  return [
    ...judgeIssuer(aws),
    { level: 'ok', subject: 'account', message: `is ${settings.account}, as configured` },
    ...judgeMinter(caller, isStatic(await minter.credentials())),
    ...(await examineRevoker(aws, caller)),
    ...(await examineOwnTrust(aws)),
  ]
}

/** What an identity is called, without account and session. */
const called = ({ arn }: Caller): string =>
  /:(?:assumed-role\/[\w+=,.@-]+|(?:user|federated-user)\/[\w+=,.@/-]+|root)/.exec(arn)?.[0].slice(1) ?? 'somebody'

function judgeMinter(caller: Caller, isKey: boolean): Finding[] {
  const subject = 'minter'
  if (called(caller) === 'root')
    return [{ level: 'fault', subject, message: 'is root, so whoever takes over the broker has the account: make the roles of deploy/aws' }]
  if (!isKey) return [{ level: 'ok', subject, message: `is ${called(caller)}` }]
  const message = `is ${called(caller)}, by a key that never ends: \`mayfly serve\` refuses it. Give the broker a role, or identity: { method: web_identity }`
  return [{ level: 'warning', subject, message }]
}

/** What IAM takes for an issuer (IAM API reference, CreateOpenIDConnectProvider). Another AWS than the real one may take more. */
function judgeIssuer({ settings: { identity, endpoint }, publicUrl }: Examined): Finding[] {
  if (identity.method !== 'web_identity' || endpoint?.startsWith('http:')) return []
  const { protocol, port } = new URL(publicUrl)
  if (protocol === 'https:' && port === '' && publicUrl.length <= 255) return []
  return [{ level: 'fault', subject: 'public_url', message: 'is no issuer to IAM: that is an https URL without a port, of 255 characters at most' }]
}

async function examineRevoker({ settings, revoker, within }: Examined, minter: Caller): Promise<Finding[]> {
  // Nobody asks IAM for anything.
  if (!settings.kill_list && settings.revoker === undefined) return []
  const subject = 'revoker'
  try {
    const caller = await revoker.caller(within())
    if (caller.account !== settings.account)
      return [{ level: 'fault', subject, message: "is of another account than the one configured: its kill lists would be nobody's" }]
    if (called(caller) !== called(minter)) return [{ level: 'ok', subject, message: `is ${called(caller)}, and not the minter` }]
    const message =
      'is the minter: whoever takes over one of them can take sessions and let them live. Configure minter and revoker, as in deploy/aws'
    return [{ level: 'warning', subject, message }]
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return [{ level: 'fault', subject, message: `${error.message}: nothing can be denied` }]
  }
}

/** Who may take the broker's own roles. */
async function examineOwnTrust({ settings, iam }: Examined): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const role of [settings.minter, settings.revoker]) {
    if (role === undefined || !iam) continue
    const subject = `own role ${role}`
    const found = await iam.role(bareName(role)).catch((error: unknown) => {
      if (error instanceof ProviderError) return 'forbidden' as const
      throw error
    })
    if (!seen(found)) findings.push({ level: 'unchecked', subject, message: 'may not be looked at: let the revoker iam:GetRole it while you check' })
    else {
      const smells = judgeTrust(subject, found.trust, {})
      findings.push(...(smells.length > 0 ? smells : [{ level: 'ok' as const, subject, message: 'lets nobody in by accident' }]))
    }
  }
  return findings
}
