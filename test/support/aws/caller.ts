import type { Account, Role, User } from './account.ts'
import { type Ask, type Grant, type Rights, whyNot } from './evaluate.ts'
import { Refusal } from './refusal.ts'
import { arnOf, type Session, userIdOf } from './sessions.ts'

/** Who signed a request. */
export type Caller =
  | { readonly kind: 'root' }
  | { readonly kind: 'user'; readonly user: User }
  | { readonly kind: 'session'; readonly session: Session }

export function nameOf(account: Account, caller: Caller): { arn: string; userId: string } {
  if (caller.kind === 'root') return { arn: account.iamArn('root'), userId: account.id }
  if (caller.kind === 'user') return { arn: caller.user.arn, userId: caller.user.id }
  return { arn: arnOf(account, caller.session), userId: userIdOf(caller.session) }
}

/** What the policies that are heeded at this moment say about a caller. */
export function rightsOf(account: Account, caller: Caller): Rights {
  const now = account.now()
  const everyone: [string, Grant][] = [
    [account.id, 'account'],
    [account.iamArn('root'), 'account'],
    ['*', 'anyone'],
    [nameOf(account, caller).arn, 'exact'],
  ]
  if (caller.kind === 'root') return { root: true, identity: [], boundary: undefined, session: [], names: new Map(everyone) }
  if (caller.kind === 'user')
    return { root: false, identity: [...caller.user.inline.at(now).values()], boundary: undefined, session: [], names: new Map(everyone) }

  const { role, layers } = caller.session
  const names = new Map(everyone).set(role.arn, 'role')
  // A session outlives its role, and can do nothing any more.
  if (account.roles.get(role.name) !== role) return { root: false, identity: [], boundary: undefined, session: layers, names: new Map() }
  return { root: false, ...rightsOfRole(account, role), session: layers, names }
}

export function rightsOfRole(account: Account, role: Role): Pick<Rights, 'identity' | 'boundary'> {
  const now = account.now()
  const managed = (arn: string | undefined) => (arn === undefined ? undefined : account.policies.get(arn)?.current.at(now).policy)
  const attached = role.attached.at(now).flatMap((arn) => managed(arn) ?? [])
  return { identity: [...role.inline.at(now).values(), ...attached], boundary: managed(role.boundary.at(now)) }
}

/** What conditions can ask about a request. @param more keys of the action itself */
export function contextOf(account: Account, caller: Caller, more: Readonly<Record<string, string | readonly string[] | undefined>> = {}) {
  const now = account.now()
  const { arn, userId } = nameOf(account, caller)
  const session = caller.kind === 'session' ? caller.session : undefined
  const tags = new Map([...(session?.role.tags ?? []), ...(session?.tags ?? [])].map(([key, value]) => [key.toLowerCase(), value]))
  const keys: Record<string, string | readonly string[] | undefined> = {
    'aws:CurrentTime': new Date(now).toISOString(),
    'aws:EpochTime': String(Math.floor(now / 1000)),
    'aws:SecureTransport': 'false',
    'aws:SourceIp': '127.0.0.1',
    'aws:RequestedRegion': 'us-east-1',
    'aws:PrincipalAccount': account.id,
    'aws:PrincipalArn': session ? session.role.arn : arn,
    'aws:PrincipalType': { root: 'Account', user: 'User', session: 'AssumedRole' }[caller.kind],
    'aws:userid': userId,
    'aws:username': caller.kind === 'user' ? caller.user.name : undefined,
    'aws:SourceIdentity': session?.sourceIdentity,
    'aws:TokenIssueTime': session && new Date(session.issuedAt).toISOString(),
    ...Object.fromEntries([...tags].map(([key, value]) => [`aws:PrincipalTag/${key}`, value])),
    ...more,
  }
  return new Map(
    Object.entries(keys).flatMap(([key, value]) => (value === undefined ? [] : [[key.toLowerCase(), typeof value === 'string' ? [value] : value]])),
  )
}

/** What is asked, with the keys of the action itself. */
export type CallerAsk = Omit<Ask, 'context'> & { about?: Parameters<typeof contextOf>[2] }

/** Undefined where the caller may. */
export function whyCannot(account: Account, caller: Caller, ask: CallerAsk): string | undefined {
  const why = whyNot(rightsOf(account, caller), { ...ask, context: contextOf(account, caller, ask.about) })
  const parent = caller.kind === 'session' ? caller.session.parent : undefined
  if (why || !parent || account.undocumented.childOfDenied === 'lives') return why
  const ofParent = whyCannot(account, { kind: 'session', session: parent }, ask)
  return isExplicit(ofParent) ? ofParent : undefined
}

export const isExplicit = (why: string | undefined) => why?.startsWith('with an explicit deny') === true

/** @throws AccessDenied, with the sentence that says which kind of policy refuses */
export function authorize(account: Account, caller: Caller, ask: CallerAsk): void {
  const why = whyCannot(account, caller, ask)
  if (why) throw denied(account, caller, ask.action, ask.resource, why)
}

export function denied(account: Account, caller: Caller, action: string, resource: string, why: string): Refusal {
  const who = `User: ${nameOf(account, caller).arn} is not authorized to perform: ${action}`
  return new Refusal('AccessDenied', `${who} on resource: ${resource} ${why}`, 403)
}
