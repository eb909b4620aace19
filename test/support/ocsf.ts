/*
 * What the schema of OCSF 1.8.0 says of the classes and objects that we use (https://schema.ocsf.io/1.8.0): which attributes there are, of which type, which
 * are required, which values an enumeration has, and which attributes must not all be absent. What is not written here is refused, so that whoever uses one more
 * attribute looks it up first.
 */

type Kind = 'text' | 'integer' | 'moment' | 'json' | Enumeration | Thing
type Enumeration = Readonly<Record<number, string>>
interface Thing {
  readonly name: string
  readonly required?: readonly string[]
  readonly oneOf?: readonly string[]
  readonly attributes: Readonly<Record<string, Kind | readonly [Kind]>>
}

const text = 'text'

const policy: Thing = { name: 'policy', oneOf: ['name', 'type', 'uid'], attributes: { name: text, uid: text, version: text, desc: text, type: text } }

const user: Thing = {
  name: 'user',
  oneOf: ['account', 'name', 'uid'],
  attributes: { name: text, uid: text, type: text, type_id: { 0: 'Unknown', 1: 'User', 2: 'Admin', 3: 'System', 4: 'Service', 99: 'Other' } },
}

const actor: Thing = {
  name: 'actor',
  oneOf: ['process', 'user', 'invoked_by', 'session', 'app_name', 'app_uid'],
  attributes: { user, app_name: text, app_uid: text },
}

const resource: Thing = {
  name: 'resource_details',
  oneOf: ['name', 'uid'],
  attributes: { name: text, uid: text, type: text, namespace: text, data: 'json' },
}

const entity: Thing = {
  name: 'managed_entity',
  oneOf: ['name', 'uid', 'device', 'group', 'org', 'policy', 'user'],
  attributes: {
    name: text,
    uid: text,
    version: text,
    policy,
    type: text,
    type_id: { 0: 'Unknown', 1: 'Device', 2: 'User', 3: 'Group', 4: 'Organization', 5: 'Policy', 6: 'Email', 7: 'Network Zone', 99: 'Other' },
  },
}

const authorization: Thing = { name: 'authorization', attributes: { decision: text, policy } }

const metadata: Thing = {
  name: 'metadata',
  required: ['version', 'product'],
  attributes: {
    version: text,
    product: { name: 'product', oneOf: ['name', 'uid'], attributes: { name: text, uid: text, vendor_name: text, version: text } },
    profiles: [text],
    uid: text,
    sequence: 'integer',
    event_code: text,
    correlation_uid: text,
  },
}

const base: Thing = {
  name: 'base_event',
  required: ['activity_id', 'category_uid', 'class_uid', 'metadata', 'severity_id', 'time', 'type_uid'],
  attributes: {
    activity_name: text,
    category_uid: 'integer',
    category_name: text,
    class_uid: 'integer',
    class_name: text,
    type_uid: 'integer',
    time: 'moment',
    message: text,
    metadata,
    severity: text,
    severity_id: { 0: 'Unknown', 1: 'Informational', 2: 'Low', 3: 'Medium', 4: 'High', 5: 'Critical', 6: 'Fatal', 99: 'Other' },
    status: text,
    status_id: { 0: 'Unknown', 1: 'Success', 2: 'Failure', 99: 'Other' },
    status_code: text,
    status_detail: text,
    unmapped: 'json',
  },
}

interface Class extends Thing {
  readonly category: readonly [number, string]
  readonly caption: string
  readonly activities: Enumeration
}

const classes: Readonly<Record<number, Class>> = {
  0: { ...base, category: [0, 'Uncategorized'], caption: 'Base Event', activities: {} },
  3004: {
    name: 'entity_management',
    category: [3, 'Identity & Access Management'],
    caption: 'Entity Management',
    required: [...base.required!, 'entity'],
    activities: {
      1: 'Create',
      2: 'Read',
      3: 'Update',
      4: 'Delete',
      5: 'Move',
      6: 'Enroll',
      7: 'Unenroll',
      8: 'Enable',
      9: 'Disable',
      10: 'Activate',
      11: 'Deactivate',
      12: 'Suspend',
      13: 'Resume',
    },
    attributes: { ...base.attributes, actor, comment: text, entity },
  },
  3005: {
    name: 'user_access',
    category: [3, 'Identity & Access Management'],
    caption: 'User Access Management',
    required: [...base.required!, 'privileges', 'user'],
    activities: { 1: 'Assign Privileges', 2: 'Revoke Privileges' },
    attributes: { ...base.attributes, actor, privileges: [text], resources: [resource], user },
  },
}

/** What an event has besides that names them in `metadata.profiles`. */
const profiles: Readonly<Record<string, Thing['attributes']>> = {
  host: { actor },
  security_control: {
    action: text,
    action_id: { 0: 'Unknown', 1: 'Allowed', 2: 'Denied', 3: 'Observed', 4: 'Modified', 99: 'Other' },
    authorizations: [authorization],
  },
}

/** Where an event is not what the schema says of its class; empty where it is. */
export function faultsOf(event: unknown): string[] {
  const { class_uid, category_uid, category_name, class_name, activity_id, type_uid, metadata: about } = event as Readonly<Record<string, unknown>>
  const found = classes[class_uid as number]
  if (!found) return [`class_uid ${String(class_uid)} is none that is used`]
  const named = ((about as { profiles?: readonly string[] } | undefined)?.profiles ?? []).map((name) => profiles[name])
  if (named.includes(undefined)) return ['a profile is none that is used']
  const activity_of = { 0: 'Unknown', ...found.activities, 99: 'Other' }
  const attributes = Object.assign({ activity_id: activity_of }, found.attributes, ...named) as Thing['attributes']
  return [
    ...faultsIn({ ...found, attributes }, event, ''),
    ...(type_uid === (class_uid as number) * 100 + (activity_id as number) ? [] : ['type_uid does not come of class and activity']),
    ...(category_uid === found.category[0] && [undefined, found.category[1]].includes(category_name as string)
      ? []
      : ['the category is not that of the class']),
    ...([undefined, found.caption].includes(class_name as string) ? [] : ['class_name is not that of the class']),
  ]
}

function faultsIn({ name, required = [], oneOf, attributes }: Thing, value: unknown, at: string): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${at} is no ${name}`]
  const fields = value as Readonly<Record<string, unknown>>
  return [
    ...required.filter((field) => !(field in fields)).map((field) => `${at}.${field} is required`),
    ...(oneOf && !oneOf.some((field) => field in fields) ? [`${at} has none of ${oneOf.join(', ')}`] : []),
    ...Object.entries(fields).flatMap(([field, held]) => {
      const kind = attributes[field]
      return kind === undefined ? [`${at}.${field} is not in ${name}`] : faultsOfKind(kind, held, `${at}.${field}`, fields)
    }),
  ]
}

function faultsOfKind(kind: Kind | readonly [Kind], value: unknown, at: string, beside: Readonly<Record<string, unknown>>): string[] {
  if (isList(kind)) {
    if (!Array.isArray(value) || value.length === 0) return [`${at} is no list`]
    return value.flatMap((each, index) => faultsOfKind(kind[0], each, `${at}[${index}]`, {}))
  }
  if (kind === 'json') return []
  if (kind === 'text') return typeof value === 'string' && value !== '' ? [] : [`${at} is no text`]
  if (kind === 'integer' || kind === 'moment') {
    const least = kind === 'moment' ? Date.UTC(2020) : 0
    return Number.isSafeInteger(value) && (value as number) >= least ? [] : [`${at} is no such number`]
  }
  if ('attributes' in kind) return faultsIn(kind, value, at)
  return faultsOfNumber(kind, value, at, beside)
}

const isList = (kind: Kind | readonly [Kind]): kind is readonly [Kind] => Array.isArray(kind)

/** A number has its caption beside it, without `_id` or as `_name`; of `Other` it must stand there, in the words of the source. */
function faultsOfNumber(values: Enumeration, value: unknown, at: string, beside: Readonly<Record<string, unknown>>): string[] {
  const caption = values[value as number]
  if (caption === undefined) return [`${at} is none of ${Object.keys(values).join(', ')}`]
  const field = at.slice(at.lastIndexOf('.') + 1)
  const said = beside[field === 'activity_id' ? 'activity_name' : field.slice(0, -'_id'.length)]
  if (value === 99)
    return typeof said === 'string' && said !== '' && !Object.values(values).includes(said) ? [] : [`${at} is Other, and nothing says what`]
  return said === undefined || said === caption ? [] : [`${at} is called ${JSON.stringify(said)}`]
}
