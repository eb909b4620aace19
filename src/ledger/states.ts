/** Every state a task can be in; the moves between them are statements of announce.ts, endings.ts and settlement.ts. */
export const taskStates = ['denied', 'open', 'closing', 'completed', 'failed', 'revoked', 'expired'] as const

/** Every state a lease can be in. `reserved` to `lapsing` are live: something may still work. */
export const leaseStates = ['reserved', 'active', 'revoking', 'lapsing', 'revoked', 'expired', 'failed'] as const

export type TaskState = (typeof taskStates)[number]
export type LeaseState = (typeof leaseStates)[number]
