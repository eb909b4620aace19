import type * as contract from '../http/contract.ts'
import type { Client } from './client.ts'
import { held, type HeldLease } from './credential.ts'

/** A task that is open, with its credentials: what an agent works with. Speaks with its own task token from here on. */
export interface OpenTask {
  readonly id: string
  readonly task: contract.TaskView
  readonly decision: contract.DecisionView
  readonly leases: readonly HeldLease[]
  /** Of the declaration. Those of later answers come to the client's `keep`. */
  readonly receipts: readonly contract.ReceiptView[]
  /** Speaks for this task alone. To be read by its name: printing, serializing or copying the task leaves it out. */
  readonly token: string
  show(): Promise<contract.ShownTask>
  add(grant: contract.GrantRequest): Promise<HeldLease>
  /** A fresh credential of a lease, where its provider has them. */
  refresh(lease: Pick<HeldLease, 'id'>): Promise<HeldLease>
  /** A new deadline; needs the client's workload token to be alive. */
  renew(asked?: contract.RenewRequest): Promise<contract.TaskView>
  /** @param wait seconds, at most 30 */
  complete(options?: { wait?: number; signal?: AbortSignal }): Promise<contract.ClosedTask>
  /** `await using task = …` completes it, whatever happens. */
  [Symbol.asyncDispose](): Promise<void>
}

/** A broker that is older gives no receipts. */
type Opened = Omit<contract.OpenedTask, 'receipts'> & Partial<Pick<contract.OpenedTask, 'receipts'>>

export function openTask(client: Client, { task, task_token: token, decision, leases, receipts = [] }: Opened): OpenTask {
  const { id } = task
  const complete: OpenTask['complete'] = (options) => client.completeTask(id, { ...options, token })
  const opened: Omit<OpenTask, 'token'> = {
    id,
    task,
    decision,
    leases: leases.map(held),
    receipts,
    show: () => client.showTask(id, token),
    add: async (grant) => (await client.addLease(id, grant, token)).lease,
    refresh: async (lease) => (await client.refreshLease(lease.id, token)).lease,
    renew: async (asked = {}) => (await client.renewTask(id, asked)).task,
    complete,
    async [Symbol.asyncDispose]() {
      await complete()
    },
  }
  // Where a box would do, callers have a text: an accessor that is not enumerable is shown by none of what prints an object.
  return Object.defineProperty(opened, 'token', { get: () => token }) as OpenTask
}
