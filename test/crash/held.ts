import { expect } from 'vitest'

/** What a declaration was answered with. */
export interface Held {
  readonly task: { readonly id: string }
  readonly task_token: string
  readonly leases: readonly HeldLease[]
}

export interface HeldLease {
  readonly id: string
  readonly grant: string
  readonly credential: { readonly token: string }
}

export interface Answer<Body = unknown> {
  readonly status: number
  readonly body: Body
}

const grantOf = (name: string) => (name === 'crm' ? { name, parameters: { customer: 'acme' } } : { name })

export const declarationOf = (grants: readonly string[], duration = '10m') => ({
  kind: 'work',
  purpose: 'a crash',
  duration,
  grants: grants.map(grantOf),
})

export const crm = ({ leases }: Held): HeldLease => leases.find(({ grant }) => grant === 'crm')!
export const api = ({ leases }: Held): HeldLease => leases.find(({ grant }) => grant === 'api')!

const secretFields = ['token', 'password', 'secret_access_key', 'session_token']

/** What of a credential is secret. */
export const secretsOf = ({ credential }: HeldLease): string[] =>
  Object.entries(credential).flatMap(([field, value]) => (secretFields.includes(field) ? [value] : []))

/** The body of an answer. @throws where it was answered otherwise */
export function accepted<Body>({ status, body }: Answer<Body>, expected = 200): Body {
  expect(status, JSON.stringify(body)).toBe(expected)
  return body
}
