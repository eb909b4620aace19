import { systemClock } from '../base/time.ts'
import type { LeaseView } from '../http/contract.ts'
import { moment, table } from './output.ts'

/** Whether nothing of a lease can work any more. */
export const hasEnded = ({ state }: Pick<LeaseView, 'state'>): boolean => ['revoked', 'expired', 'failed'].includes(state)

/** @param whose says whose each is, which is known of those of one task */
export const leaseTable = (leases: readonly LeaseView[], { whose = false }: { whose?: boolean } = {}): string =>
  table(
    ['LEASE', 'STATE', 'GRANT', 'PROVIDER', ...(whose ? ['AGENT', 'TASK'] : []), 'EXPIRES', 'PROOF OR ERROR'],
    leases.map((lease) => {
      const { id, agent, task, grant, provider, expires_at, evidence, error } = lease
      const proof = evidence ? `${evidence.by}: ${evidence.statement}` : error
      return [id, stateOf(lease), grant, provider, ...(whose ? [agent, task] : []), moment(expires_at), proof]
    }),
  )

const stateOf = ({ state, stuck_since, standing, outlives_revocation }: LeaseView): string =>
  [
    state,
    ...(stuck_since === undefined ? [] : ['STUCK']),
    ...(standing ? ['STANDING'] : []),
    ...(outlives_revocation === undefined ? [] : ['OUTLIVES']),
  ].join(' ')

/** Who held what and for how long; how long after its end was decided it was dead, or is alive by now, and what stood in the way. */
export const heldTable = (leases: readonly LeaseView[], now = systemClock()): string =>
  table(
    ['LEASE', 'STATE', 'AGENT', 'GRANT', 'TASK', 'HELD FROM', 'UNTIL', 'LATE', 'CAUSE', 'WHY LATE'],
    leases.map((lease) => {
      const { id, agent, grant, task, issued_at, closing_at, ended_at, expires_at, cause, error, revocation } = lease
      const until = hasEnded(lease) ? moment(ended_at) : `alive, until ${moment(expires_at)}`
      const late = closing_at && `${(((ended_at === undefined ? now : Date.parse(ended_at)) - Date.parse(closing_at)) / 1_000).toFixed(1)}s`
      const soFar = late && !hasEnded(lease) ? `${late} so far` : late
      const why = error ?? (revocation === 'expiry' ? 'only time ends it' : undefined)
      return [id, stateOf(lease), agent, grant, task, moment(issued_at), until, soFar, cause, why]
    }),
  )

/** Said in full where one lease is shown; in a table it is a word. */
export const outlivesLines = ({ outlives_revocation }: Pick<LeaseView, 'outlives_revocation'>): readonly string[] =>
  outlives_revocation === undefined ? [] : [`goes on when it is dead: ${outlives_revocation.join(', ')}`]
