import { createHash, randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Clock } from '../base/time.ts'
import type { Spend } from '../identity/single-use.ts'
import { createSeal } from './seal.ts'

/** Milliseconds that a link waits to be used. */
const lifetime = 600_000

const Shape = z.strictObject({ id: z.string(), subject: z.string(), expiresAt: z.number() })

const sealOf = (key: Uint8Array, clock: Clock) => createSeal(key, 'one-time link', Shape, lifetime, clock)

/**
 * The secret part of a link that signs in once, as this subject of the local issuer of a development broker. Whoever can read its key can be any of its
 * operators already, as with `mayfly dev token`.
 */
export const writeLink = (key: Uint8Array, subject: string, clock: Clock): string => sealOf(key, clock).write({ id: randomUUID(), subject })

/** Whom a link signs in, and never again. Undefined: made up, used, or too old. @throws BrokerError `store_unavailable` */
export async function useLink(key: Uint8Array, text: string, clock: Clock, spend: Spend): Promise<string | undefined> {
  const link = sealOf(key, clock).read(text)
  if (!link) return undefined
  const spent = createHash('sha256').update(`one-time link ${link.id}`).digest('hex')
  return (await spend(spent, new Date(link.expiresAt))) ? link.subject : undefined
}
