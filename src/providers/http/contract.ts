import { z } from 'zod'
import { parseJson } from '../../base/json.ts'
import { Secret } from '../../base/secret.ts'
import type { ProviderFault } from '../provider.ts'
import { httpGrant } from './settings.ts'
import type { Answer } from '../exchange.ts'

/*
 * What is said between the broker and a backend of kind `http`. docs/provider-http holds these shapes as JSON Schemas; a test keeps them equal.
 */

const moment = z.iso.datetime({ offset: true })
const word = z.string().max(1_024)
const secret = z
  .string()
  .min(1)
  .max(16_384)
  .transform((value) => new Secret(value))

/** Body of `PUT /leases/{lease}`. */
export const mintRequest = z.strictObject({
  task: word,
  agent: word,
  owner: word,
  kind: word,
  subject: word.describe('Subject of the verified workload token of the agent.'),
  grant: word,
  settings: httpGrant.shape.settings.unwrap().describe('What the catalogue says about this grant, as it stands there.'),
  parameters: z.record(word, word).describe('What the agent asked for within the grant; each matched its pattern.'),
  expires_at: moment.describe('The credential has to end by itself at this moment at the latest.'),
})

export type MintRequest = z.input<typeof mintRequest>

const credential = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('bearer_token'), token: secret }),
  z.strictObject({ type: z.literal('username_password'), username: z.string().min(1).max(1_024), password: secret }),
  z.strictObject({
    type: z.literal('aws_session'),
    access_key_id: z.string().min(1).max(256),
    secret_access_key: secret,
    session_token: secret,
    expiration: moment,
  }),
  z.strictObject({
    type: z.literal('fields'),
    fields: z
      .record(z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/), secret)
      .refine((fields) => Object.keys(fields).length >= 1 && Object.keys(fields).length <= 32)
      .meta({ minProperties: 1, maxProperties: 32 }),
  }),
])

/** Body of the answer to `PUT /leases/{lease}`, status 200 or 201. */
export const mintAnswer = z.strictObject({
  credential,
  expires_at: moment.describe('When the credential ends by itself; never later than was asked for.'),
})

/** Body of the answer to `GET /leases/{lease}`, status 200. */
export const leaseAnswer = z.strictObject({
  lease: word,
  state: z.enum(['live', 'ended']).describe('Whether a credential of this lease works now.'),
  minted: z.boolean().describe('Whether there ever was one.'),
})

/** The one member of a problem (RFC 9457) that the broker reads: nothing of this lease works, and nothing will come of this request. */
export const problem = z.looseObject({
  alive: z.literal(false).describe('Nothing of this lease works, and nothing will come of this request.'),
})

/** The body of an answer, or undefined where it is not exactly what the contract says. Says nothing about why: the body may hold a secret. */
export function bodyOf<T>(answer: Answer, shape: z.ZodType<T>, mediaType: string): T | undefined {
  if (answer.mediaType !== mediaType) return undefined
  try {
    return shape.safeParse(parseJson(answer.body)).data
  } catch {
    return undefined
  }
}

/** Whether the backend declares that its refusal left nothing alive. Only a declaration counts: any proxy on the way can answer 4xx. */
export const leftNothing = (answer: Answer): boolean => bodyOf(answer, problem, 'application/problem+json') !== undefined

/** What a status other than the promised one says: try again, do not, or nobody knows. */
export function faultOf(status: number): ProviderFault {
  if (status === 408 || status === 409 || status === 425 || status === 429 || status >= 500) return 'unavailable'
  return status >= 400 ? 'refused' : 'garbage'
}
