/** What an answer is made of. An absent value leaves no element. */
export type Xml = string | number | boolean | Date | undefined | readonly Xml[] | { readonly [name: string]: Xml }

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escaped = (text: string) => text.replace(/[&<>"]/g, (sign) => escapes[sign]!)

/** Each `entry` of a map is an element of its own, in both. Lists stand in `<member>` elements, as AWS Query has them; with `flat` the element itself is repeated, as S3 has them. */
export function xml(name: string, value: Xml, lists: 'member' | 'flat' = 'member', attributes = ''): string {
  if (value === undefined) return ''
  if (Array.isArray(value) && (lists === 'flat' || name === 'entry')) return value.map((item: Xml) => xml(name, item, lists)).join('')
  return `<${name}${attributes}>${content(value, lists)}</${name}>`
}

function content(value: Exclude<Xml, undefined>, lists: 'member' | 'flat'): string {
  // Whole seconds: IAM and STS answer with no finer times.
  if (value instanceof Date) return value.toISOString().replace(/\.\d+Z$/, 'Z')
  if (Array.isArray(value)) return value.map((item: Xml) => xml('member', item, lists)).join('')
  if (typeof value === 'object')
    return Object.entries(value)
      .map(([name, part]) => xml(name, part, lists))
      .join('')
  return escaped(String(value))
}
