import type { leaseStates, taskStates } from './schema.ts'

export type TaskState = (typeof taskStates)[number]
export type LeaseState = (typeof leaseStates)[number]
