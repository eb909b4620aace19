import { everythingDenied, policyText, type Statement, toTheSecond } from '../policy.ts'

/**
 * A session's name at AWS: the cohort that was minting when it was issued (3 of base36), and its number there (5). `aws:userid` is the role's id,
 * a colon and this name. A colon is legal in neither, so `*:` and a name match that name alone.
 */
const sessionName = /^[0-9a-z]{8}$/
const cohortName = /^[0-9a-z]{3}$/
/** Never a session's name, so that no cohort's pattern takes it in. Without `*`, `?` and `$`, which mean something in a policy. */
const canaryName = /^@[\w+=,.@-]{1,63}$/

/** Who is denied everything. Each list may be empty; `survivors` are the exceptions to `cohorts`, and to nothing else. */
export interface Denials {
  cohorts: readonly string[]
  survivors: readonly string[]
  names: readonly string[]
  /** Whole seconds: every session of the role that AWS issued before this moment. */
  cutoff?: Date | undefined
}

/**
 * The policy, minified, the same bytes for the same denials in whatever order. A statement that would deny nobody is left out, because a
 * condition without values is an error to AWS. Undefined where no statement is left: AWS accepts no empty policy, so the carrier is deleted.
 */
export function render({ cohorts, survivors, names, cutoff }: Denials, base: readonly Statement[]): string | undefined {
  const ofCohorts = {
    StringLike: userids(cohorts.map((cohort) => `${cohort}?????`)),
    ...(survivors.length > 0 && { StringNotLike: userids(survivors) }),
  }
  const statements = [
    ...base,
    ...(cohorts.length > 0 ? [{ ...everythingDenied, Condition: ofCohorts }] : []),
    ...(names.length > 0 ? [{ ...everythingDenied, Condition: { StringLike: userids(names) } }] : []),
    ...(cutoff ? [{ ...everythingDenied, Condition: { DateLessThan: { 'aws:TokenIssueTime': toTheSecond(cutoff) } } }] : []),
  ]
  return statements.length > 0 ? policyText(statements) : undefined
}

/** Denies the role as a whole: the shortest text there is that leaves no ended session alive. */
export function renderShut(base: readonly Statement[]): string {
  return policyText([...base, everythingDenied])
}

/** The cohort of a session, by its name. */
export const cohortOf = (name: string): string => name.slice(0, 3)

/** @throws RangeError where it is not a session's name: as a pattern it could match others, or nobody */
export function assertSession(name: string): void {
  if (!sessionName.test(name)) throw new RangeError(`not the name of a session: ${JSON.stringify(name)}`)
}

/** @throws RangeError */
export function assertCohort(cohort: string): void {
  if (!cohortName.test(cohort)) throw new RangeError(`not the name of a cohort: ${JSON.stringify(cohort)}`)
}

/** @throws RangeError */
export function assertCanary(name: string): void {
  if (!canaryName.test(name)) throw new RangeError(`not the name of a canary: ${JSON.stringify(name)}`)
}

function userids(patterns: readonly string[]) {
  return { 'aws:userid': [...new Set(patterns)].toSorted().map((pattern) => `*:${pattern}`) }
}
