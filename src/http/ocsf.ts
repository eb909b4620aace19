import { madeAt } from '../base/ids.ts'
import { fieldIn, type Json, textIn, textsIn } from '../base/json.ts'
import { type EntryKind, isEntryKind } from '../proof/entry-kinds.ts'
import type { EntryFields } from '../proof/leaf.ts'
import type { LogLine } from '../proof/lines.ts'

/** The version of OCSF that events are of: https://schema.ocsf.io/1.8.0. */
const schemaVersion = '1.8.0'

/**
 * The classes that entries are told in, with those of their activities that we do.
 *
 * Not API Activity (6003), which requires the caller's address: the ledger holds who asked, and not from where. Not Authorize Session (3003), which knows no
 * end. A decision changes nobody's rights by itself and an entry of one names no grant, so it is a base event with the profile of a control that decided.
 */
const classes = {
  base: { class_uid: 0, class_name: 'Base Event', category_uid: 0, category_name: 'Uncategorized', activities: new Map<string, number>() },
  entity: {
    class_uid: 3004,
    class_name: 'Entity Management',
    category_uid: 3,
    category_name: 'Identity & Access Management',
    activities: new Map([
      ['Create', 1],
      ['Update', 3],
      ['Activate', 10],
      ['Deactivate', 11],
    ]),
  },
  access: {
    class_uid: 3005,
    class_name: 'User Access Management',
    category_uid: 3,
    category_name: 'Identity & Access Management',
    activities: new Map([
      ['Assign Privileges', 1],
      ['Revoke Privileges', 2],
    ]),
  },
} as const

const severities = { Informational: 1, Low: 2, Medium: 3, High: 4, Critical: 5 } as const

const other = 99

/** Of an event or an object. What is undefined is left out where it is written. */
type Attributes = Readonly<Record<string, unknown>>

interface Told {
  readonly class: keyof typeof classes
  /** In the words of the class; one that it does not have is `Other` under this name. */
  readonly activity: string
  /** A sentence, of which nothing was written by an agent. */
  readonly says: string
  readonly failed?: boolean
  readonly severity?: keyof typeof severities
  /** What the class or a profile has besides. */
  readonly attributes?: Attributes
  readonly profiles?: readonly string[]
}

/** Undefined: the entry does not hold what the class requires. */
type Tell = (entry: EntryFields) => Told | undefined

type Manner = Pick<Told, 'failed' | 'severity'>

/**
 * A line of the log as an event of OCSF, for a SIEM. It carries what the entry carries and nothing else, and the entry as a whole: in `metadata` its id, number,
 * kind and task, in `unmapped` the rest. Every entry becomes an event, one of a kind that is not known here a base event. So does a place whose entry is gone.
 */
export function asOcsf({ number, leaf_hash, entry, missing = '' }: LogLine): Attributes {
  const told = entry ? tell(entry) : removed
  const { id, at, kind, body, ...about }: Partial<EntryFields> = entry ?? { id: missing }
  return {
    ...classified(told),
    time: at === undefined ? madeAt(id) : Date.parse(at),
    status_id: told.failed ? 2 : 1,
    status: told.failed ? 'Failure' : 'Success',
    status_code: textIn(body, 'cause') || undefined,
    status_detail: textIn(body, 'error') || textIn(fieldIn(body, 'evidence'), 'statement') || undefined,
    message: told.says,
    ...told.attributes,
    metadata: {
      version: schemaVersion,
      product: { name: productName, vendor_name: productName },
      profiles: told.profiles,
      uid: id,
      sequence: number,
      event_code: kind,
      correlation_uid: about.task ?? (textIn(body, 'revocation') || textIn(body, 'stop') || undefined),
    },
    unmapped: { number, leaf_hash, ...about, body },
  }
}

const productName = 'Mayfly'

function classified({ class: chosen, activity, failed = false, severity = failed ? 'Low' : 'Informational' }: Told): Attributes {
  const { activities, ...names } = classes[chosen]
  const activity_id = activities.get(activity) ?? other
  const type_uid = names.class_uid * 100 + activity_id
  return { ...names, activity_id, activity_name: activity, type_uid, severity_id: severities[severity], severity }
}

function tell(entry: EntryFields): Told {
  const told = isEntryKind(entry.kind) ? facts[entry.kind](entry) : undefined
  return told ?? { class: 'base', activity: entry.kind, says: 'Something happened for which this version of the broker has no class' }
}

const removed: Told = {
  class: 'base',
  activity: 'Removal',
  says: 'An entry is gone from the history, though the log has its leaf',
  failed: true,
  severity: 'Critical',
}

// Who

/** Somebody as the ledger names them: `agent:NAME`, `operator:ISSUER/SUBJECT`, or without a role the broker itself. */
function actorOf(by: string): Attributes | undefined {
  const [, role, name] = /^(\w+):(.+)$/s.exec(by) ?? []
  if (role === undefined || name === undefined) return by === '' ? undefined : { app_name: by }
  return { user: role === 'agent' ? agentAs(name) : { uid: by, type_id: other, type: role } }
}

/** Service account is the nearest that OCSF has. */
const agentAs = (name: string): Attributes => ({ name, type_id: 4, type: 'Service' })

/** Who did it, or the agent whose request it was. */
const actorIn = ({ agent, body }: EntryFields, isAsked: boolean): Attributes | undefined =>
  actorOf(textIn(body, 'by') || (isAsked && agent !== undefined ? `agent:${agent}` : ''))

// What

/** Something that the broker keeps. @param uid which one it is */
const managed =
  (type: string, uid: (entry: EntryFields) => string | undefined) =>
  (activity: string, says: string, how: Manner & { readonly isAsked?: boolean; readonly with?: (entry: EntryFields) => Attributes } = {}): Tell =>
  (entry) => {
    const named = uid(entry)
    if (!named) return undefined
    const { isAsked = false, with: more, ...manner } = how
    const attributes = {
      actor: actorIn(entry, isAsked),
      comment: textIn(entry.body, 'reason') || undefined,
      entity: { uid: named, type_id: other, type, ...more?.(entry) },
    }
    return { class: 'entity', activity, says, ...manner, attributes }
  }

const task = managed('Task', (entry) => entry.task)
const revocation = managed('Revocation', ({ body }) => textIn(body, 'revocation'))
const stop = managed('Stop', ({ body }) => textIn(body, 'stop'))
const killList = managed('Kill list', ({ body }) => textIn(body, 'role'))
const policySet = managed('Policy', ({ body }) => textIn(body, 'policy_digest'))
const log = managed('Log', ({ body }) => textIn(body, 'origin'))

/**
 * Rights of an agent. The right is the lease: the entries of its end do not repeat its grant, and by the lease a SIEM finds both ends of one right. What it gives
 * access to is the grant, where the entry names it.
 */
const access =
  (activity: string, says: string, manner: Manner = {}): Tell =>
  (entry) => {
    const { agent, lease, body } = entry
    if (agent === undefined || lease === undefined) return undefined
    const grant = textIn(body, 'grant')
    const resource = { name: grant, type: 'Grant', namespace: textIn(body, 'provider') || undefined, data: fieldIn(body, 'parameters') }
    const attributes = { actor: actorIn(entry, false), user: agentAs(agent), privileges: [lease], ...(grant !== '' && { resources: [resource] }) }
    return { class: 'access', activity, says, ...manner, attributes }
  }

/** Somebody asked, and was let or not. */
function answered(
  entry: EntryFields,
  activity: string,
  isAllowed: boolean,
  says: string,
  how: Manner & { readonly authorizations?: readonly Attributes[] } = {},
): Told {
  const { authorizations, ...manner } = how
  const attributes = {
    actor: actorIn(entry, true),
    action_id: isAllowed ? 1 : 2,
    action: isAllowed ? 'Allowed' : 'Denied',
    authorizations,
  }
  return { class: 'base', activity: activity || entry.kind, says, failed: !isAllowed, ...manner, attributes, profiles: ['host', 'security_control'] }
}

const decided: Tell = (entry) => {
  const { body } = entry
  const outcome = textIn(body, 'outcome')
  const isAllowed = outcome === 'permit'
  return answered(entry, textIn(body, 'action'), isAllowed, isAllowed ? 'The policy permitted a request' : 'The policy denied a request', {
    // Of a denial, a policy that is named may have permitted another grant: which one denied is in the answers of the decision.
    authorizations: policiesIn(body).map((policy) => ({
      decision: (isAllowed || policy['name'] === undefined) && outcome ? outcome : undefined,
      policy,
    })),
  })
}

/** Those that determined it; the set, where no policy of it did. */
function policiesIn(body: Json): readonly Attributes[] {
  const version = textIn(body, 'policy_digest') || undefined
  const named = textsIn(body, 'policies').filter((name) => name !== '')
  return named.length === 0 ? [{ type: 'Cedar', version }] : named.map((name) => ({ name, version }))
}

/** One for each kind of entry: a kind that is added does not compile until it stands here. */
const facts: Readonly<Record<EntryKind, Tell>> = {
  'task.opened': task('Create', 'A task was opened', { isAsked: true }),
  'task.denied': task('Create', 'A task was refused', { isAsked: true, failed: true }),
  'task.closing': task('Close', 'The end of a task has begun'),
  'task.ended': task('Deactivate', 'A task has ended, and all its leases with it'),
  'task.renewed': task('Update', 'A task was given a later deadline', { isAsked: true }),
  'task.reissued': task('Update', 'A task was given another token, since its answer was lost', { isAsked: true }),
  'decision.made': decided,
  'lease.reserved': access('Announce', 'A credential was announced, and is about to be minted'),
  'lease.issued': access('Assign Privileges', 'A credential was issued'),
  'lease.refreshing': access('Announce Refresh', 'A fresh credential was announced, and is about to be minted'),
  'lease.refreshed': access('Refresh', 'A fresh credential was issued'),
  'lease.not_refreshed': access('Refresh', 'No fresh credential was issued', { failed: true }),
  'lease.revoking': access('Begin Revocation', 'The end of a credential has begun'),
  'lease.lapsing': access('Await Expiry', 'A credential is left to its own end, since only time ends it'),
  'lease.revoked': access('Revoke Privileges', 'A credential was ended before its time, with evidence'),
  // Never as revoked: nobody has ended it.
  'lease.expired': access('Expire', 'The time of a credential is over'),
  'lease.failed': access('Assign Privileges', 'Nothing was minted', { failed: true }),
  'lease.reopened': access('Reopen', 'A credential turned out to exist after all, and is being ended', { severity: 'Medium' }),
  'lease.stuck': access('Revoke Privileges', 'A credential cannot be ended: it may still work', { failed: true, severity: 'High' }),
  'policy.activated': policySet('Activate', 'A policy set is in force', {
    with: ({ body }) => ({ type_id: 5, policy: { uid: textIn(body, 'policy_digest') } }),
  }),
  'request.denied': (entry) => answered(entry, textIn(entry.body, 'action'), false, 'A request was refused that the policy permitted'),
  'request.refused': (entry) =>
    answered(entry, textIn(entry.body, 'call'), false, 'Somebody was refused who asked for what only operators may do', { severity: 'Medium' }),
  'revocation.started': revocation('Create', 'The end of many was begun', { severity: 'Medium' }),
  'revocation.ended': revocation('Deactivate', 'All that was to be ended is dead'),
  'stop.began': stop('Activate', 'Issuing was stopped', { severity: 'Medium' }),
  'stop.lifted': stop('Deactivate', 'Issuing goes on'),
  'kill_list.written': killList('Update', 'The kill list of a role was written', {
    with: ({ body }) => ({ version: textIn(body, 'generation') || undefined }),
  }),
  'log.opened': log('Activate', 'The signed log was closed, and goes on as another one under a new key', { severity: 'Medium' }),
}
