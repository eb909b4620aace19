/** Every kind of fact that the history holds. */
export const entryKinds = [
  'task.opened',
  'task.denied',
  'task.closing',
  'task.ended',
  'task.renewed',
  'task.reissued',
  'decision.made',
  'lease.reserved',
  'lease.issued',
  'lease.refreshing',
  'lease.refreshed',
  'lease.not_refreshed',
  'lease.revoking',
  'lease.lapsing',
  'lease.revoked',
  'lease.expired',
  'lease.failed',
  'lease.reopened',
  'lease.stuck',
  'policy.activated',
  'request.denied',
  'request.refused',
  'revocation.started',
  'revocation.ended',
  'stop.began',
  'stop.lifted',
  'kill_list.written',
  'log.opened',
] as const

export type EntryKind = (typeof entryKinds)[number]

const known: ReadonlySet<string> = new Set(entryKinds)

/** Whether this version of the broker writes such entries: the history may hold those of a newer one. */
export const isEntryKind = (kind: string): kind is EntryKind => known.has(kind)
