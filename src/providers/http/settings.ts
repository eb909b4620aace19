import { z } from 'zod'
import { isLoopback } from '../../base/address.ts'
import { addressFault } from '../connection.ts'
import { callTimeout, path } from '../shapes.ts'

/** Its entry under `providers:`. `timeout` is for one whole call; `concurrency` holds for mints and, apart from them, for ends. */
export const httpSettings = z
  .strictObject({
    url: z.string().max(2_048),
    /** The broker's own bearer token; read again when the file changes. */
    token_file: path.optional(),
    /** The broker's client certificate, PEM; read again when a file changes. */
    mtls: z.strictObject({ cert: path, key: path }).optional(),
    /** Certificates that may sign the backend's, PEM; the system's where absent. */
    ca: path.optional(),
    revocation: z.enum(['provider', 'deny', 'expiry']),
    timeout: callTimeout.prefault('10s'),
    concurrency: z.int().min(1).max(256).default(16),
    /** Secrets in clear text over a network: for a mesh that encrypts by itself, and nothing else. */
    allow_http: z.boolean().default(false),
  })
  .superRefine((settings, context) => {
    const fault = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message })
    const message = addressFault(settings.url, settings.allow_http)
    if (message !== undefined) fault('url', message)
    if (!URL.canParse(settings.url)) return
    const url = new URL(settings.url)
    const local = url.protocol === 'http:' && isLoopback(url.hostname)
    if (url.username || url.password || url.search || url.hash) fault('url', 'must not carry credentials, a query or a fragment')
    if (url.protocol === 'http:' && settings.mtls) fault('mtls', 'needs an https url')
    if (!settings.token_file && !settings.mtls && !local) fault('token_file', 'or mtls is required, or anyone could mint at this backend')
  })

export type HttpSettings = z.output<typeof httpSettings>

const scalarWords = 'must be a text of at most 1024 characters, a number, true or false'
const scalar = z.union([z.string().max(1_024), z.number(), z.boolean()], scalarWords)

/** A grant's own part: what the backend is told about it, as it stands in the catalogue. */
export const httpGrant = z.strictObject({
  settings: z
    .record(z.string().min(1).max(64), z.union([scalar, z.array(scalar).max(64)], `${scalarWords}, or a list of 64 such at most`))
    .refine((settings) => Object.keys(settings).length <= 32, 'must have at most 32 keys')
    .default({}),
})

export type HttpGrant = z.output<typeof httpGrant>
