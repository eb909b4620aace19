import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import type { VaultGrant } from '../grant.ts'

/** What a role behind a grant is held against. */
export interface RoleOnTrial {
  /** Of the findings. */
  readonly subject: string
  readonly grant: VaultGrant
  /** Seconds: what the grant promises. */
  readonly longest: number
}

/** Seconds in an answer; 0 where it names none. */
export const seconds = z
  .int()
  .nonnegative()
  .nullish()
  .transform((count) => count ?? 0)

/** @param most seconds; 0 and undefined: no limit of its own */
export function tooShort({ subject, longest }: RoleOnTrial, most: number | undefined): Finding[] {
  if (!most || most >= longest) return []
  const message = `lets nothing live longer than ${most} s, and the grant promises ${longest} s: such leases will be shorter. Raise max_ttl here, or lower it in the catalogue`
  return [{ level: 'warning', subject, message }]
}
