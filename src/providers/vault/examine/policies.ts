import type { Finding } from '../../provider.ts'
import type { VaultGrant } from '../grant.ts'

/** What grants make of a policy, and its text in Vault's own language; undefined where the broker may not read it, `null` where there is none. */
export interface TaskPolicy {
  readonly name: string
  readonly grants: readonly VaultGrant[]
  readonly text: string | null | undefined
}

/** A task's token has the policy of its grant: it should open the path of the grant, and nothing besides. */
export function judgeTaskPolicies(policies: readonly TaskPolicy[]): Finding[] {
  const closed = policies.filter(({ text }) => text === undefined).map(({ name }) => name)
  const unchecked: Finding = {
    level: 'unchecked',
    subject: 'task policies',
    message: `whether one opens more than the path of its grant: a broker may not read policies. Look with \`bao policy read\` at ${closed.join(', ')}`,
  }
  return [...policies.flatMap(judge), ...(closed.length > 0 ? [unchecked] : [])]
}

function judge({ name, grants, text }: TaskPolicy): Finding[] {
  const subject = `task policy ${name}`
  if (text === null) return [{ level: 'fault', subject, message: 'there is no such policy: write it, or mend the grant' }]
  if (text === undefined) return []
  const wanted = grants.map(pathOf)
  const said = withoutComments(text)
  const stanzas = [...said.matchAll(stanza)]
  const opened = stanzas.flatMap(([, path, denial]) => (denial === undefined ? [path!] : []))
  const more = opened.filter((path) => !wanted.some((whole) => isWithin(path, whole)))
  if (more.length > 0) return [{ level: 'fault', subject, message: `opens more than ${wanted.join(', ')}: take ${more.join(', ')} away` }]
  // A policy may be written otherwise, as in JSON: what is not read here may open anything.
  const isRead = opened.length > 0 && stanzas.length === said.match(/\bpath\b/g)?.length
  if (isRead) return [{ level: 'ok', subject, message: `opens nothing but ${wanted.join(', ')}` }]
  const message = `whether it opens more than ${wanted.join(', ')} is not understood: write it as \`path "…" { … }\`, or look with \`bao policy read ${name}\``
  return [{ level: 'unchecked', subject, message }]
}

/** A path of a policy, and what follows it where that is a denial and nothing else. */
const stanza = /\bpath\s+"([^"]*)"(\s*\{\s*capabilities\s*=\s*\[\s*"deny"\s*,?\s*\]\s*\})?/g

/** Whether a path of a policy opens no more than the path of a grant: segment by segment the same, or one value of a parameter. `*` stands for any number of segments. */
function isWithin(path: string, whole: string): boolean {
  const [parts, wanted] = [path.split('/'), whole.split('/')]
  return parts.length === wanted.length && parts.every((part, at) => part === wanted[at] || (wanted[at] === '+' && !part.includes('*')))
}

/** Of a policy in Vault's own language. What looks like a comment in a text between quotes is none. */
const withoutComments = (text: string): string =>
  text.replace(/("(?:[^"\\]|\\.)*")|#.*|\/\/.*|\/\*[^]*?\*\//g, (_, quoted: string | undefined) => quoted ?? ' ')

/** As a policy writes the path of a grant: `+` stands for a parameter. */
const pathOf = ({ parts }: VaultGrant): string => parts.map((part) => (part.startsWith('{') ? '+' : part)).join('/')
