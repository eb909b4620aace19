import { delay } from '../../base/time.ts'
import type { Client, HeldLease, OpenTask } from '../../client/client.ts'
import type { LeaseView, ShownTask, TaskView } from '../../http/contract.ts'

/** How often in a row a lease is replaced that was never refreshed. A role that gives its sessions up at once would be asked for ever. */
const most = 8

/** Milliseconds by which the broker may know that a lease is over before it is known here, where its clock is told by what it answered last. */
const ahead = 2_000

/** What became of a lease that is not refreshed any more: another one, the task's end, nothing to be had now, or nothing at all. */
export type Replaced =
  | { readonly outcome: 'given'; readonly lease: HeldLease; readonly decidedAt: string }
  | { readonly outcome: 'task_ended'; readonly task: TaskView }
  | { readonly outcome: 'final' }

/** Asks for another lease of a grant in the place of one that ended by itself. */
export interface Replacements {
  /** @param now the broker's clock, as far as it is known. @throws what the client throws; then it makes sense to come back */
  instead(lease: HeldLease, now: number, signal: AbortSignal): Promise<Replaced>
  /** The last one was refreshed: what comes is another matter. */
  worked(): void
}

/** @param pause milliseconds before the second try in a row, doubled with each, and the most */
export function createReplacements(client: Client, task: OpenTask, pause: { readonly first: number; readonly most: number }): Replacements {
  let inRow = 0
  return {
    async instead(lease, now, signal) {
      const shown = await client.showTask(task.id, task.token, signal)
      if (shown.task.state !== 'open') return { outcome: 'task_ended', task: shown.task }
      if (!endedByItself(leaseIn(shown, lease), now) || inRow >= most) return { outcome: 'final' }
      if (inRow > 0) await delay(Math.min(pause.most, pause.first * 2 ** inRow), signal)
      inRow += 1
      const given = await client.addLease(task.id, { name: lease.grant, parameters: lease.parameters }, task.token, signal)
      return { outcome: 'given', lease: given.lease, decidedAt: given.decision.decided_at }
    },
    worked() {
      inRow = 0
    },
  }
}

const leaseIn = ({ leases }: ShownTask, { id }: HeldLease): LeaseView | undefined => leases.find((lease) => lease.id === id)

/**
 * Whether a lease ended because its time had come, or because its role could not carry it any longer. One that somebody revoked is not replaced: whoever
 * did that meant it.
 */
function endedByItself(lease: LeaseView | undefined, now: number): boolean {
  if (lease?.state === 'active') return Date.parse(lease.expires_at) <= now + ahead
  return lease?.cause === 'lease_expired' || lease?.cause === 'limit'
}
