import { z } from 'zod'
import { durationWithin } from '../base/duration.ts'

/** A path in the configuration; made absolute by whoever read the file it stands in. */
export const path = z.string().min(1).max(4_096)

/**
 * Milliseconds that one whole call may take at most. Less than the time for which whoever ends a lease has claimed it (`claimSeconds` in the ledger): an
 * end that outlasted its claim would be asked for a second time while it is under way.
 */
export const longestCall = 25_000

/** The `timeout` of a provider. */
export const callTimeout = durationWithin(1_000, longestCall)
