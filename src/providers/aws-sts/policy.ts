/** One statement of an IAM policy, as it will be written. */
export type Statement = Readonly<Record<string, unknown>>

/** The text of a policy, minified: the room for it is short. */
export const policyText = (statements: readonly Statement[]): string => JSON.stringify({ Version: '2012-10-17', Statement: statements })

/** All that there is, denied: with a condition, to whom or when. */
export const everythingDenied = { Effect: 'Deny', Action: '*', Resource: '*' } as const

/** A moment as conditions on dates are written: RFC 3339, to the second. */
export const toTheSecond = (moment: Date): string => moment.toISOString().replace(/\.\d+Z$/, 'Z')
