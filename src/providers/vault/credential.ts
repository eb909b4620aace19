import { z } from 'zod'
import { Secret } from '../../base/secret.ts'
import type { Credential } from '../credential.ts'
import type { VaultGrant } from './grant.ts'

/** A name that a field may have on the wire. */
const fieldName = /^[A-Za-z0-9_.-]{1,64}$/
const mostFields = 32

const login = z.looseObject({ username: z.string().min(1).max(1_024), password: z.string().min(1).max(16_384) })
const account = z.looseObject({ service_account_token: z.string().min(1).max(16_384) })
const stored = z.looseObject({ data: z.record(z.string(), z.unknown()) })

/** The secret in the form in which its user needs it. Undefined: not what this engine gives. */
export function credentialOf({ engine }: VaultGrant, data: Readonly<Record<string, unknown>>): Credential | undefined {
  if (engine === 'kv') {
    // A deleted version answers without data.
    const value = stored.safeParse(data).data
    return value && fieldsOf(value.data)
  }
  if (engine === 'kubernetes') {
    const token = account.safeParse(data).data?.service_account_token
    return token === undefined ? undefined : { type: 'bearer_token', token: new Secret(token) }
  }
  const named = engine === 'leased' ? login.safeParse(data).data : undefined
  return named ? { type: 'username_password', username: named.username, password: new Secret(named.password) } : fieldsOf(data)
}

/** Whatever else Vault has secrets of: lists are lines, and what has a shape of its own is JSON. */
function fieldsOf(data: Readonly<Record<string, unknown>>): Credential | undefined {
  const entries = Object.entries(data).filter(([, value]) => value !== null && value !== undefined && value !== '')
  if (entries.length === 0 || entries.length > mostFields || !entries.every(([name]) => fieldName.test(name))) return undefined
  return { type: 'fields', fields: Object.fromEntries(entries.map(([name, value]) => [name, new Secret(textOf(value))])) }
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (Array.isArray(value) && value.every((line) => typeof line === 'string')) return value.join('\n')
  return JSON.stringify(value)
}
