import { z } from 'zod'
import type { Handle } from '../../base/evidence.ts'

/** Where a handle is known: in its cluster, by the id that this tells of itself, in its namespace, if it has one, and to no other. */
const place = { namespace: z.string().optional(), cluster_id: z.string().optional() }

/**
 * What is journaled of a lease, in this order: the task token by its accessor, before it is used; then what was read with it. An accessor alone says that
 * a read may have begun.
 */
const vaultHandle = z.union([
  z.strictObject({ ...place, accessor: z.string(), lease_id: z.string() }),
  z.strictObject({ ...place, accessor: z.string(), mount: z.string(), serial_number: z.string() }),
  // With a mount the read is one of a certificate, which has no lease that ends with the token.
  z.strictObject({ ...place, accessor: z.string(), mount: z.string().optional() }),
])

/** The id of a lease begins with the path that made it, and ends with a name of its own. */
const leaseOfCertificate = /\/(issue|sign|sign-verbatim)\/[^/]+\/[^/]+$/

/** What an end has to deal with. */
export interface Held {
  /** Task tokens, each once. `cluster` is undefined where whoever made it told none. */
  readonly tokens: readonly { readonly accessor: string; readonly namespace: string | undefined; readonly cluster: string | undefined }[]
  readonly leases: readonly { readonly leaseId: string; readonly namespace: string | undefined }[]
  readonly certificates: readonly { readonly mount: string; readonly serialNumber: string; readonly namespace: string | undefined }[]
  /** Whether what is ended is a certificate, which works on wherever the revocation list of its authority is not read. */
  readonly listed: boolean
  /** Whether for some token nothing says what was read with it. */
  readonly undecided: boolean
  /** Mounts that may have signed a certificate whose serial number nobody knows. */
  readonly unseen: readonly string[]
}

/** @throws ZodError for a handle that this folder did not write */
export function heldBy(handles: readonly Handle[]): Held {
  const all = handles.map((handle) => vaultHandle.parse(handle))
  const tokens = new Map(all.map(({ accessor, namespace, cluster_id: cluster }) => [accessor, { accessor, namespace, cluster }]))
  const leases = all.flatMap((handle) => ('lease_id' in handle ? [{ ...handle, leaseId: handle.lease_id }] : []))
  const certificates = all.flatMap((handle) => ('serial_number' in handle ? [{ ...handle, serialNumber: handle.serial_number }] : []))
  const decided = new Set([...leases, ...certificates].map(({ accessor }) => accessor))
  const unseen = all.flatMap((handle) => ('mount' in handle && handle.mount !== undefined && !decided.has(handle.accessor) ? [handle.mount] : []))
  return {
    tokens: [...tokens.values()],
    leases: leases.map(({ leaseId, namespace }) => ({ leaseId, namespace })),
    certificates: certificates.map(({ mount, serialNumber, namespace }) => ({ mount, serialNumber, namespace })),
    listed: certificates.length > 0 || leases.some(({ leaseId }) => leaseOfCertificate.test(leaseId)),
    undecided: [...tokens.keys()].some((accessor) => !decided.has(accessor)),
    unseen: [...new Set(unseen)],
  }
}
