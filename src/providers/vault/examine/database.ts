import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import { texts } from '../answers.ts'
import { longestFirstLife } from '../life.ts'
import { type RoleOnTrial, seconds, tooShort } from './trial.ts'

/** `data` of database/roles/:name. */
const databaseRole = z.looseObject({
  db_name: z.string(),
  default_ttl: seconds,
  max_ttl: seconds,
  creation_statements: texts,
  revocation_statements: texts,
})

/** How Postgres quotes the name of a login. */
const forPostgres = /\bCREATE\s+(ROLE|USER)\s+"\{\{(user)?name\}\}"/i

/** Whether a role makes logins of Postgres. @param data as Vault shows it */
export const isOfPostgres = (data: unknown): boolean => forPostgres.test(databaseRole.safeParse(data).data?.creation_statements.join('\n') ?? '')

/** The role that makes logins of a database. */
export function judgeDatabaseRole(trial: RoleOnTrial, data: unknown): Finding[] {
  const { subject, grant } = trial
  const role = databaseRole.safeParse(data).data
  if (!role) return grant.endedBy === 'time' ? [] : [isNone(subject)]
  const findings = tooShort(trial, role.max_ttl)
  if (grant.endedBy === 'time')
    findings.push({
      level: 'warning',
      subject,
      message: 'makes logins that their lease ends, and the grant says ended_by: time. Let it say lease, and they are dropped when their task ends',
    })
  if (role.default_ttl === 0 || role.default_ttl > longestFirstLife) {
    const life = role.default_ttl === 0 ? 'as long as its mount allows, which is a month where nobody changed it' : `${role.default_ttl} s`
    findings.push({
      level: 'fault',
      subject,
      message: `default_ttl: a login that was made while the broker died lives ${life}. Set default_ttl=${longestFirstLife}s; the broker renews its leases up to their end`,
    })
  }
  const creation = role.creation_statements.join('\n')
  if (!isOfPostgres(data))
    return [
      ...findings,
      { level: 'unchecked', subject, message: 'statements: only those of Postgres are understood. See to it yourself that open sessions are ended' },
    ]
  return [...findings, ...judgeCreation(subject, creation), ...judgeRevocation(subject, role.revocation_statements)]
}

const isNone = (subject: string): Finding => ({
  level: 'unchecked',
  subject,
  message: 'is no role of a database, and others are not judged: see to it yourself that what it ends is dead',
})

/** @param creation statements for Postgres */
function judgeCreation(subject: string, creation: string): Finding[] {
  const findings: Finding[] = []
  if (!/\bVALID\s+UNTIL\s+'\{\{expiration\}\}'/i.test(creation))
    findings.push({
      level: 'fault',
      subject,
      message: "creation_statements: without VALID UNTIL '{{expiration}}' nothing ends a login while Vault is down. Add it",
    })
  if (!/\bCONNECTION\s+LIMIT\s+\d/i.test(creation))
    findings.push({
      level: 'warning',
      subject,
      message:
        'creation_statements: without CONNECTION LIMIT one login may take every connection of the database, and Vault gets in no more to end it. Add one, such as CONNECTION LIMIT 20',
    })
  if (/\bGRANT\b[^;]*\bON\b/i.test(creation))
    findings.push({
      level: 'fault',
      subject,
      message:
        'creation_statements: GRANT … ON for each login fails where two come at once, and keeps DROP ROLE from working. Give the rights to a group, and make logins IN ROLE of it',
    })
  else if (!/\bIN ROLE\b/i.test(creation))
    findings.push({
      level: 'warning',
      subject,
      message: 'creation_statements: no IN ROLE, so a login has no rights but those of PUBLIC. Make it IN ROLE of a group that has them',
    })
  return findings
}

const terminates = /\bpg_terminate_backend\b/i
const seesOpening = /\bpg_locks\b/i
const dropsRole = /\bDROP\s+(ROLE|USER)\b/i

/** Whether a statement ends sessions that have a name, and not those that are being opened. */
const cutsSessions = (text: string): boolean => terminates.test(text) && !seesOpening.test(text)

/**
 * NOLOGIN, made true by COMMIT, then the end of every session, a look whether one is left, then DROP with what the login made. In one transaction whoever
 * reconnects meanwhile keeps a session for good. After DROP a session has no name, and neither its end nor the look finds it.
 */
export function judgeRevocation(subject: string, entries: readonly string[]): Finding[] {
  const like =
    'as in deploy/vault/database-role.json: NOLOGIN, COMMIT, pg_terminate_backend, a look for what is left and DROP, each an entry of its own'
  const finding = (level: 'fault' | 'warning', message: string): Finding => ({
    level,
    subject,
    message: `revocation_statements: ${message}. Write them ${like}`,
  })
  const fault = (message: string): Finding[] => [finding('fault', message)]
  if (entries.every((entry) => entry.trim() === '')) return fault('none, and what Vault does by itself leaves open sessions alone')
  const steps = entries.flatMap(stepsOf)
  const at = (step: (text: string) => boolean, from = 0): number => steps.findIndex((text, nth) => nth >= from && step(text))
  if (at(cutsSessions) === -1) return fault('open sessions are left alone: without pg_terminate_backend they go on after the login is gone')
  const noLogin = at((text) => /\bNOLOGIN\b/i.test(text))
  if (noLogin === -1) return fault('without NOLOGIN first a client that reconnects in a loop keeps a session that nothing ends')
  const commit = at((text) => /^(COMMIT|END)\b/i.test(text), noLogin)
  const terminate = commit === -1 ? -1 : at(cutsSessions, commit)
  if (terminate === -1)
    return fault(
      'all in one transaction: whoever reconnects before it is over keeps a session that nothing ends. COMMIT has to stand between NOLOGIN and pg_terminate_backend',
    )
  const drop = at((text) => dropsRole.test(text))
  if (drop === -1) return fault('without DROP ROLE every login that ever was stays as a role')
  if (drop < terminate || (drop === terminate && steps[drop]!.search(dropsRole) < steps[drop]!.search(terminates)))
    return fault('the role is dropped before its sessions are cut, which then have no name to be found by')
  const findings: Finding[] = []
  const warnUnless = (isSo: boolean, message: string): void => void (isSo || findings.push(finding('warning', message)))
  const [before, between] = [steps.slice(0, noLogin + 1), steps.slice(commit, drop)]
  warnUnless(
    before.some((text) => /\block_timeout\b/i.test(text)) && before.some(cutsSessions),
    'whoever changes their own password and does not commit holds up NOLOGIN, and all of the connection behind it: lock_timeout and pg_terminate_backend have to come before it too',
  )
  warnUnless(
    between.some((text) => seesOpening.test(text)),
    'a session that is being opened is in pg_locks and not yet in pg_stat_activity, stays so for as long as its client likes (post_auth_delay), and is left alone',
  )
  warnUnless(
    steps.slice(terminate + 1, drop + 1).some((text) => /\bpg_stat_activity\b/i.test(text) && (!terminates.test(text) || dropsRole.test(text))),
    'a session that does not end in time is not noticed, for pg_terminate_backend only warns of it',
  )
  const ownerships = steps.filter((text) => /\bDROP\s+OWNED\b/i.test(text))
  warnUnless(
    ownerships.length > 0,
    'without DROP OWNED an agent keeps its lease from ending: whoever owns something, such as a large object, is not dropped',
  )
  warnUnless(
    ownerships.every((text) => /\bout_of_memory\b/i.test(text)),
    'an agent keeps its lease from ending with more objects than the database has locks: DROP OWNED has to pass over out_of_memory',
  )
  return findings
}

/** The statements of one entry: a block between `$$` is one of them, whatever stands in it. */
const stepsOf = (entry: string): string[] =>
  (entry.match(/(?:\$(\w*)\$[^]*?\$\1\$|[^;])+/g) ?? []).map((statement) => statement.trim()).filter((statement) => statement !== '')
