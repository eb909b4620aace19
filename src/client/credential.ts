import { inspect } from 'node:util'
import type { CredentialView, IssuedLease, LeaseView } from '../http/contract.ts'

/**
 * A credential as an agent holds it: read on purpose with `reveal()`, and never by accident: printing, logging or serializing it shows its type.
 * Unlike the broker's own box it can be read more than once, since the agent needs it for as long as it lives.
 */
export class Credential {
  readonly #view: CredentialView
  readonly type: CredentialView['type']

  constructor(view: CredentialView) {
    this.#view = view
    this.type = view.type
  }

  /** The whole credential, as it stood in the answer. */
  reveal(): CredentialView {
    return this.#view
  }

  /** Its one secret part, where it has exactly one: the token, the password, the only field. */
  secret(): string | undefined {
    const view = this.#view
    if (view.type === 'bearer_token') return view.token
    if (view.type === 'username_password') return view.password
    const [only, ...others] = view.type === 'fields' ? Object.values(view.fields) : []
    return others.length === 0 ? only : undefined
  }

  toString = (): string => `[${this.type}]`
  toJSON = (): object => ({ type: this.type });
  [inspect.custom] = (): string => `[${this.type}]`
}

/** A lease with its credential, as an agent holds it. */
export type HeldLease = LeaseView & { readonly credential: Credential }

/** A lease whose credential does not print itself. */
export const held = ({ credential, ...lease }: IssuedLease): HeldLease => ({ ...lease, credential: new Credential(credential) })
