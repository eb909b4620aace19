/** A no of AWS, as it goes out on the wire: a code that clients switch on, an HTTP status and a sentence. */
export class Refusal extends Error {
  readonly code: string
  readonly status: number

  constructor(code: string, message: string, status = 400) {
    super(message)
    this.code = code
    this.status = status
  }
}

export const invalid = (message: string) => new Refusal('ValidationError', message)
export const absent = (what: string) => new Refusal('NoSuchEntity', `The ${what} cannot be found.`, 404)
export const tooMany = (message: string) => new Refusal('LimitExceeded', message, 409)
export const inUse = (message: string) => new Refusal('DeleteConflict', message, 409)
export const taken = (what: string) => new Refusal('EntityAlreadyExists', `${what} already exists.`, 409)
