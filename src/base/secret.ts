import { createHmac } from 'node:crypto'
import { inspect } from 'node:util'

/** A secret value that cannot be printed, logged or serialized by accident. Providers fill it; the route that answers opens it, once. */
export class Secret {
  #value: string | undefined

  constructor(value: string) {
    this.#value = value
  }

  /** The value, a single time: a second caller is a bug, and gets an exception instead of a copy. */
  open(): string {
    const value = this.#value
    if (value === undefined) throw new Error('this secret was already opened')
    this.#value = undefined
    return value
  }

  /** What the ledger keeps: enough to recognise a leaked value, useless to anyone who reads the ledger alone. HMAC-SHA-256, base64url. */
  digest(key: Uint8Array): string {
    if (this.#value === undefined) throw new Error('this secret was already opened')
    return createHmac('sha256', key).update(this.#value).digest('base64url')
  }

  toString = (): string => '[secret]'
  toJSON = (): string => '[secret]';
  [inspect.custom] = (): string => '[secret]'
}
