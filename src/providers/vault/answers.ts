import { z } from 'zod'
import { ProviderError, type ProviderFault } from '../provider.ts'
import type { VaultAnswer } from './client.ts'

/*
 * What Vault and OpenBao answer, as far as it is read (sdk/logical of OpenBao; developer.hashicorp.com/vault/api-docs). Both add fields with time, so
 * unknown keys are no fault here. Whole seconds throughout.
 */

const seconds = z.int().nonnegative()
/** A list of texts, empty where Vault writes `null` or nothing. */
export const texts = z
  .array(z.string())
  .nullish()
  .transform((all) => all ?? [])

/** `auth` of a login, of a token that was made, and of one that was renewed. */
const authAnswer = z.looseObject({
  auth: z.looseObject({
    client_token: z.string(),
    accessor: z.string(),
    policies: texts,
    lease_duration: seconds,
    renewable: z.boolean(),
    orphan: z.boolean().optional(),
    token_type: z.string().optional(),
  }),
})

/** A secret that was read. `lease_id` is empty where there is no lease. */
const secretAnswer = z.looseObject({
  lease_id: z.string(),
  renewable: z.boolean(),
  lease_duration: seconds,
  data: z.record(z.string(), z.unknown()),
})

const renewedAnswer = z.looseObject({ lease_id: z.string(), lease_duration: seconds, renewable: z.boolean() })

/** auth/token/lookup-self. */
const selfAnswer = z.looseObject({ data: z.looseObject({ ttl: seconds, renewable: z.boolean().optional() }) })

/** sys/health. Which cluster it is an unsealed node tells. Of HashiCorp's Vault alone: whether it is the Enterprise edition, and one of its standbys that answer by themselves. */
const healthAnswer = z.looseObject({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  version: z.string(),
  server_time_utc: z.int(),
  cluster_id: z.string().optional(),
  enterprise: z.boolean().optional(),
  performance_standby: z.boolean().optional(),
})

export type TokenAuth = z.output<typeof authAnswer>['auth']
export type SecretAnswer = z.output<typeof secretAnswer>
export type Health = z.output<typeof healthAnswer>

const reader =
  <T>(shape: z.ZodType<T>) =>
  (answer: VaultAnswer): T | undefined =>
    answer.status === 200 ? shape.safeParse(answer.body).data : undefined

/** Each: the answer where it is a 200 of this shape, undefined for anything else. */
export const authOf = reader(authAnswer)
export const secretOf = reader(secretAnswer)
export const renewedOf = reader(renewedAnswer)
export const selfOf = reader(selfAnswer)

/** `data` of an answer, where it is a 200 of this shape. */
export const dataOf = <T>(answer: VaultAnswer, shape: z.ZodType<T>): T | undefined => reader(z.looseObject({ data: shape }))(answer)?.data

/** The health of a node, by whatever status it tells it. */
export const healthOf = (answer: VaultAnswer): Health | undefined => healthAnswer.safeParse(answer.body).data

/** Vault's own words about a failure; empty where they are not Vault's. For classifying only: they may name accessors and leases, so nobody else sees them. */
function errorsOf({ body }: VaultAnswer): readonly string[] {
  return z.looseObject({ errors: z.array(z.string()) }).safeParse(body).data?.errors ?? []
}

/** Whether a failure is told in Vault's own words, as against those of a proxy before it. */
export const isItsOwn = (answer: VaultAnswer): boolean => errorsOf(answer).length > 0

export const says = (answer: VaultAnswer, phrase: string): boolean => errorsOf(answer).some((message) => message.includes(phrase))

/** Whether a warning stands beside the answer. With 200, a missing policy and an unknown accessor are told nowhere else. */
export const warns = ({ body }: VaultAnswer, phrase: RegExp): boolean =>
  z
    .looseObject({ warnings: texts })
    .safeParse(body)
    .data?.warnings.some((warning) => phrase.test(warning)) ?? false

/** An answer that is none of those hoped for, in words that hold nothing of it but its status. @param what such as `a token` */
export function unexpected(name: string, what: string, answer: VaultAnswer, minted: 'no' | 'maybe'): ProviderError {
  const { fault, reason } = meaning(answer)
  return new ProviderError(fault, `${name} gave no ${what}: ${reason}`, minted, { pointlessFor: answer.pointlessFor })
}

/** What a status says: try again, do not, or nobody knows. Most failures of a backend arrive as 400, so the words are looked at as well. */
export function meaning(answer: VaultAnswer): { readonly fault: ProviderFault; readonly reason: string } {
  const { status } = answer
  if (status === 503) return { fault: 'unavailable', reason: says(answer, 'sealed') ? 'it is sealed' : 'it has no active node' }
  if (status === 429) return { fault: 'unavailable', reason: 'its rate limit was met' }
  if (status === 501) return { fault: 'unavailable', reason: 'it is not initialized' }
  if (status === 412 || status === 408 || status === 425 || status === 472 || status === 473 || status === 474)
    return { fault: 'unavailable', reason: `it answered with status ${status}` }
  if (says(answer, 'failed to revoke entry') || says(answer, 'failed to renew entry'))
    return { fault: 'downstream', reason: 'the backend behind it failed' }
  if (status === 403)
    return {
      fault: 'refused',
      reason: isItsOwn(answer) ? 'permission denied' : 'something before it answers with status 403, in words that are not its own',
    }
  if (status === 404)
    return { fault: 'refused', reason: says(answer, 'namespace not found') ? 'there is no such namespace' : 'there is nothing at that path' }
  if (status === 500 && isItsOwn(answer)) return { fault: 'downstream', reason: 'the backend behind it failed' }
  if (status >= 500) return { fault: 'unavailable', reason: `it answered with status ${status}` }
  return status >= 400
    ? { fault: 'refused', reason: `it refused with status ${status}` }
    : { fault: 'garbage', reason: `status ${status} with an answer that is not understood` }
}
