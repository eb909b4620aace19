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
  const paths = [...said.matchAll(/\bpath\s+"([^"]*)"/g)].map(([, path]) => path!)
  const more = paths.filter((path) => !wanted.includes(path.replaceAll('*', '+')))
  if (more.length > 0) return [{ level: 'fault', subject, message: `opens more than ${wanted.join(', ')}: take ${more.join(', ')} away` }]
  // A policy may be written otherwise, as in JSON: what is not read here may open anything.
  const isRead = paths.length > 0 && paths.length === said.match(/\bpath\b/g)?.length
  if (isRead) return [{ level: 'ok', subject, message: `opens ${wanted.join(', ')} alone` }]
  const message = `whether it opens more than ${wanted.join(', ')} is not understood: write it as \`path "…" { … }\`, or look with \`bao policy read ${name}\``
  return [{ level: 'unchecked', subject, message }]
}

/** Of a policy in Vault's own language. What looks like a comment in a text between quotes is none. */
const withoutComments = (text: string): string =>
  text.replace(/("(?:[^"\\]|\\.)*")|#.*|\/\/.*|\/\*[^]*?\*\//g, (_, quoted: string | undefined) => quoted ?? ' ')

/** As a policy writes the path of a grant: `+` stands for a parameter. */
const pathOf = ({ parts }: VaultGrant): string => parts.map((part) => (part.startsWith('{') ? '+' : part)).join('/')
