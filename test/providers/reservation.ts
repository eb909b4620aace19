import { newId } from '../../src/base/ids.ts'
import { stopwatch } from '../../src/base/time.ts'
import type { Reservation } from '../../src/providers/provider.ts'

/** A reservation as the ledger would announce it, of a new lease that lives for ten minutes. */
export function reservationOf<Grant>(settings: Grant, changes: Partial<Reservation<Grant>> = {}): Reservation<Grant> {
  const now = Date.now()
  return {
    lease: newId('lease'),
    task: newId('task'),
    agent: 'invoice-bot',
    owner: 'finance-platform@example.com',
    kind: 'invoice-sync',
    subject: 'spiffe://prod.example.com/agents/invoice-bot',
    grant: 'invoices-api',
    settings,
    parameters: { customer: 'acme' },
    issuedAt: new Date(now),
    elapsed: stopwatch(),
    expiresAt: new Date(now + 600_000),
    policyDigest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000',
    handles: [],
    ...changes,
  }
}
