import { z } from 'zod'

/** Allowed names of what is configured, such as issuers, providers and grants: they go into logs, metrics, policies, paths and file names unchanged. */
export const Name = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower-case letters, digits, ".", "_" or "-", at most 64')
