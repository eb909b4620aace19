import { randomUUID } from 'node:crypto'
import { invalid, type Refusal } from './refusal.ts'
import { xml, type Xml } from './xml.ts'

/** The body of a call in AWS's Query protocol: one action, and parameters whose lists are spelled `Name.member.1`. */
export class Form {
  readonly #fields: URLSearchParams

  constructor(body: string) {
    this.#fields = new URLSearchParams(body)
  }
  get action(): string {
    return this.#fields.get('Action') ?? ''
  }
  optional(name: string): string | undefined {
    return this.#fields.get(name) ?? undefined
  }
  /** @throws ValidationError when it is absent */
  text(name: string): string {
    const value = this.#fields.get(name)
    if (value === null)
      throw invalid(`1 validation error detected: Value null at '${camel(name)}' failed to satisfy constraint: Member must not be null`)
    return value
  }
  /** A whole number within bounds. @throws ValidationError */
  number(name: string, least: number, most: number): number | undefined {
    const value = this.#fields.get(name)
    if (value === null) return undefined
    const number = Number(value)
    if (!Number.isInteger(number) || number < least || number > most)
      throw invalid(
        `1 validation error detected: Value '${value}' at '${camel(name)}' failed to satisfy constraint: Member must have a value between ${least} and ${most}`,
      )
    return number
  }
  flag(name: string): boolean {
    return this.#fields.get(name) === 'true'
  }
  /** The members of a list; `part` names a field of each where members are structures. */
  list(name: string, part?: string): string[] {
    const found: string[] = []
    for (let at = 1; ; at += 1) {
      const value = this.#fields.get(`${name}.member.${at}${part ? `.${part}` : ''}`)
      if (value === null) return found
      found.push(value)
    }
  }
  /** @throws ValidationError when a text is there and does not match, or is too long or short */
  matching(name: string, least: number, most: number, signs: RegExp): string | undefined {
    const value = this.optional(name)
    if (value === undefined) return undefined
    if (value.length < least || value.length > most || !signs.test(value))
      throw invalid(
        `1 validation error detected: Value '${value}' at '${camel(name)}' failed to satisfy constraint: ${least} to ${most} of ${signs.source}`,
      )
    return value
  }
}

/** What a list is asked for by `PathPrefix`. Never more than one page. */
export const under = <Item extends { readonly path: string }>(form: Form, items: Iterable<Item>): Item[] =>
  [...items].filter(({ path }) => path.startsWith(form.optional('PathPrefix') ?? '/'))

const camel = (name: string) => name.charAt(0).toLowerCase() + name.slice(1)

/** What an action of the Query protocol answers. */
export function queryAnswer(action: string, namespace: string, result: Xml): string {
  const parts = { ...(result !== undefined && { [`${action}Result`]: result }), ResponseMetadata: { RequestId: randomUUID() } }
  return xml(`${action}Response`, parts, 'member', ` xmlns="${namespace}"`)
}

export function queryRefusal(refusal: Refusal): string {
  const error = { Type: refusal.status < 500 ? 'Sender' : 'Receiver', Code: refusal.code, Message: refusal.message }
  return xml('ErrorResponse', { Error: error, RequestId: randomUUID() })
}
