/** One statement of an IAM policy, as it will be written. */
export type Statement = Readonly<Record<string, unknown>>

/** The text of a policy, minified: the room for it is short. */
export const policyText = (statements: readonly Statement[]): string => JSON.stringify({ Version: '2012-10-17', Statement: statements })

/** All that there is, denied: with a condition, to whom or when. */
export const everythingDenied = { Effect: 'Deny', Action: '*', Resource: '*' } as const

/** A moment as conditions on dates are written: RFC 3339, to the second. */
export const toTheSecond = (moment: Date): string => moment.toISOString().replace(/\.\d+Z$/, 'Z')

/** IAM answers policies as RFC 3986 has them in a URL (IAM API reference, GetPolicyVersion). What cannot be read is a text like no other. */
export function policyTextOf(encoded: string | undefined): string {
  try {
    return decodeURIComponent(encoded ?? '')
  } catch {
    return ''
  }
}

/** Characters that a managed policy may have, as a boundary is one, and that the inline policies of one role may have together (IAM User Guide, "IAM and AWS STS quotas"). */
export const room = { boundary: 6_144, inline: 10_240 } as const

/** Characters of a policy as IAM counts them: white space is none (IAM User Guide, "IAM and AWS STS quotas"). */
export const sizeOf = (text: string): number => text.replace(/\s/g, '').length
