import type { Account, Role } from './account.ts'
import { authorize, type Caller, denied, isExplicit, nameOf, whyCannot } from './caller.ts'
import type { Form } from './query.ts'
import { invalid, Refusal } from './refusal.ts'
import { arnOf, credentialsOf, packedSize, sizeOf, startSession, userIdOf } from './sessions.ts'
import { hasKey, named, readSessionPolicy, sessionPolicies, sessionTags } from './session-parameters.ts'
import type { Xml } from './xml.ts'

type StsAction = (account: Account, caller: Caller, form: Form) => Xml

const actions: Readonly<Record<string, StsAction>> = {
  // No policy can refuse it.
  GetCallerIdentity(account, caller) {
    const { arn: Arn, userId: UserId } = nameOf(account, caller)
    return { Arn, UserId, Account: account.id }
  },

  /** No answer of this peer has an encoded message in it, as EC2's have, so that every one is a message that nobody encoded. */
  DecodeAuthorizationMessage(account, caller, form) {
    if (form.matching('EncodedMessage', 1, 10_240, /^/) === undefined) form.text('EncodedMessage')
    authorize(account, caller, { action: 'sts:DecodeAuthorizationMessage', resource: '*' })
    throw new Refusal('InvalidAuthorizationMessageException', 'Message is not valid')
  },

  AssumeRole(account, caller, form) {
    const roleArn = form.text('RoleArn')
    const name = form.matching('RoleSessionName', 2, 64, named) ?? form.text('RoleSessionName')
    const asked = form.number('DurationSeconds', 900, 43_200)
    const externalId = form.matching('ExternalId', 2, 1224, /^[\w+=,.@:/-]*$/)
    const ownIdentity = form.matching('SourceIdentity', 2, 64, named)
    const leastSize = form.number('MinimumSessionTokenSize', 0, 4096)
    const { layers, texts } = sessionPolicies(account, form)
    const parent = caller.kind === 'session' ? caller.session : undefined
    const tags = sessionTags(form)
    const passed = [...(parent?.tags ?? [])].filter(([key]) => parent!.transitive.includes(key.toLowerCase()))
    if (passed.some(([key]) => hasKey(tags, key))) throw invalid('Inherited transitive tag keys cannot be passed again.')
    const transitive = [...form.list('TransitiveTagKeys').map((key) => key.toLowerCase()), ...passed.map(([key]) => key.toLowerCase())]
    const packed = packedSize([...texts, ...[...tags].flat()])

    const role = [...account.roles.values()].find(({ arn }) => arn === roleArn)
    const sourceIdentity = ownIdentity ?? parent?.sourceIdentity
    const about = {
      'sts:ExternalId': externalId,
      'sts:RoleSessionName': name,
      'sts:SourceIdentity': sourceIdentity,
      'sts:TransitiveTagKeys': form.list('TransitiveTagKeys'),
      'aws:TagKeys': tags.size > 0 ? [...tags.keys()] : undefined,
      ...Object.fromEntries([...tags].map(([key, value]) => [`aws:RequestTag/${key}`, value])),
    }
    const needed = ['AssumeRole', ...(tags.size > 0 ? ['TagSession'] : []), ...(sourceIdentity ? ['SetSourceIdentity'] : [])]
    for (const action of needed) authorizeAssuming(account, caller, `sts:${action}`, role, roleArn, about)
    if (parent?.sourceIdentity && sourceIdentity !== parent.sourceIdentity)
      throw new Refusal('AccessDenied', 'SourceIdentity cannot be changed once it is set.', 403)
    if (asked !== undefined && asked > role!.maxDuration)
      throw invalid('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.')
    if (parent && asked !== undefined && asked > 3600)
      throw invalid('The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining')

    const issuedAt = account.now()
    const session = startSession(
      account,
      {
        role: role!,
        name,
        parent: undefined,
        issuedAt,
        expiresAt: issuedAt + (asked ?? 3600) * 1000,
        tags: new Map([...passed, ...tags]),
        transitive,
        sourceIdentity,
        layers,
        narrowed: 0,
        packed,
      },
      leastSize,
    )
    return {
      AssumedRoleUser: { AssumedRoleId: userIdOf(session), Arn: arnOf(account, session) },
      Credentials: credentialsOf(session),
      SourceIdentity: sourceIdentity,
      ...sizeOf(session),
    }
  },

  GetScopedCredentials(account, caller, form) {
    if (caller.kind !== 'session') throw new Refusal('InvalidSubjectCredentials', 'Only temporary credentials can be scoped down.')
    const parent = caller.session
    // AWS does not say that it must be allowed; that it can be denied follows from what a deny is.
    const why = whyCannot(account, caller, { action: 'sts:GetScopedCredentials', resource: '*' })
    if (why !== undefined && isExplicit(why)) throw denied(account, caller, 'sts:GetScopedCredentials', '*', why)
    const text = form.optional('Policy')
    const asked = form.number('DurationSeconds', 1, 129_600)
    form.matching('ScopedSessionDescription', 0, 256, /^[\s\S]*$/)
    if (text === undefined && asked === undefined) throw invalid('Either Policy or DurationSeconds must be given.')
    if (text !== undefined && parent.narrowed === 3) throw invalid('Credentials can be scoped down by at most 3 policies.')
    const layer = text === undefined ? [] : [[readSessionPolicy(text)]]
    const packed = packedSize([...[...parent.layers.flat(), ...layer.flat()].map((policy) => policy.text), ...[...parent.tags].flat()])
    const now = account.now()
    if (asked !== undefined && now + asked * 1000 > parent.expiresAt)
      throw new Refusal('InsufficientSessionLifetime', 'The requested DurationSeconds exceeds what is left of the session.')
    const session = startSession(account, {
      ...parent,
      parent,
      issuedAt: account.undocumented.issueTimeOfChild === 'its own' ? now : parent.issuedAt,
      expiresAt: asked === undefined ? parent.expiresAt : now + asked * 1000,
      layers: [...parent.layers, ...layer],
      narrowed: parent.narrowed + layer.length,
      packed,
    })
    return {
      Credentials: credentialsOf(session),
      SessionInfo: { ScopedSessionId: session.keyId, Arn: arnOf(account, session) },
      SourceIdentity: session.sourceIdentity,
      ScopedPoliciesCount: session.narrowed,
      ...sizeOf(session),
    }
  },
}

/** @throws Refusal InvalidAction for what this peer does not have */
export function callSts(account: Account, caller: Caller, form: Form): Xml {
  const action = actions[form.action]
  if (!action) throw new Refusal('InvalidAction', `Could not find operation ${form.action} for version 2011-06-15`)
  return action(account, caller, form)
}

function authorizeAssuming(
  account: Account,
  caller: Caller,
  action: string,
  role: Role | undefined,
  resource: string,
  about: Record<string, string | readonly string[] | undefined>,
): void {
  // A role that does not exist is refused like one that trusts somebody else.
  if (!role)
    throw new Refusal('AccessDenied', `User: ${nameOf(account, caller).arn} is not authorized to perform: ${action} on resource: ${resource}`, 403)
  authorize(account, caller, { action, resource, about, resourcePolicy: role.trust.at(account.now()), resourceMustAllow: true })
}
