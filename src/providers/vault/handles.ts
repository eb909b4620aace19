import { z } from 'zod'
import type { Handle } from '../../base/evidence.ts'

/** Where a handle is known: in its namespace, if it has one, and to no other. */
const place = { namespace: z.string().optional() }

/**
 * What is journaled of a lease, in this order: the task token by its accessor, before it is used; then what was read with it. An accessor alone says that
 * a read may have begun.
 */
const vaultHandle = z.union([
  z.strictObject({ ...place, accessor: z.string(), lease_id: z.string() }),
  z.strictObject({ ...place, accessor: z.string(), mount: z.string(), serial_number: z.string() }),
  z.strictObject({ ...place, accessor: z.string() }),
])

/** What an end has to deal with. */
export interface Held {
  /** Task tokens, each once. */
  readonly tokens: readonly { readonly accessor: string; readonly namespace: string | undefined }[]
  readonly leases: readonly { readonly leaseId: string; readonly namespace: string | undefined }[]
  readonly certificates: readonly { readonly mount: string; readonly serialNumber: string; readonly namespace: string | undefined }[]
  /** Whether for some token nothing says what was read with it. */
  readonly undecided: boolean
}

/** @throws ZodError for a handle that this folder did not write */
export function heldBy(handles: readonly Handle[]): Held {
  const all = handles.map((handle) => vaultHandle.parse(handle))
  const tokens = new Map(all.map(({ accessor, namespace }) => [accessor, { accessor, namespace }]))
  const leases = all.flatMap((handle) => ('lease_id' in handle ? [{ ...handle, leaseId: handle.lease_id }] : []))
  const certificates = all.flatMap((handle) => ('serial_number' in handle ? [{ ...handle, serialNumber: handle.serial_number }] : []))
  const decided = new Set([...leases, ...certificates].map(({ accessor }) => accessor))
  return {
    tokens: [...tokens.values()],
    leases: leases.map(({ leaseId, namespace }) => ({ leaseId, namespace })),
    certificates: certificates.map(({ mount, serialNumber, namespace }) => ({ mount, serialNumber, namespace })),
    undecided: [...tokens.keys()].some((accessor) => !decided.has(accessor)),
  }
}
