import { z } from 'zod'
import type { Actor, ProfileName } from './actor.ts'
import { type Claims, isPrintable } from './claims.ts'
import type { Compact } from './compact.ts'
import type { Issuer, Rules } from './issuer.ts'
import { lift } from './lift.ts'
import { parseSpiffeId } from './spiffe.ts'

type Attributes = Actor['attributes']

/** What is particular about the tokens of a kind of issuer. */
export interface Profile {
  /** The `typ`s by which a token says itself that it is of this kind, in lower case; empty where none does. */
  readonly types: readonly string[]
  /** Headers beyond which it has none; all of the closed list where absent. */
  readonly headers?: readonly string[]
  /** Whether its tokens always say when they were issued. */
  readonly issueTime: boolean
  /** The names of all attributes that a token of this issuer may prove; no token has others. */
  names(issuer: Pick<Issuer, 'require' | 'claims'>): readonly string[]
  /** The attributes that it proves, or undefined where a claim that the profile demands is absent or contradicts another. */
  attributes(claims: Claims, rules: Rules): Attributes | undefined
  /** The names of those that it has and that cannot be read. Absent: then the token is refused. */
  unreadable?(claims: Claims, rules: Rules): readonly string[]
}

export const profiles: Readonly<Record<ProfileName, Profile>> = {
  /** JWT-SVID: https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md */
  spiffe: {
    types: ['jwt', 'jose'],
    headers: ['alg', 'kid', 'typ'],
    issueTime: false,
    names: () => spiffeAttributes,
    attributes({ sub }, { trustDomain }) {
      const id = parseSpiffeId(sub)
      if (!id || id.trustDomain !== trustDomain) return undefined
      return { sub, 'spiffe/trust_domain': id.trustDomain, 'spiffe/path': id.path } satisfies Of<typeof spiffeAttributes>
    },
  },

  /** Projected service account tokens: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ */
  kubernetes: {
    types: ['jwt'],
    issueTime: true,
    names: () => kubernetesAttributes,
    attributes(claims) {
      const { data } = kubernetesShape.safeParse(claims)
      if (!data) return undefined
      const { namespace, serviceaccount, pod, node } = data['kubernetes.io']
      if (data.sub !== `system:serviceaccount:${namespace}:${serviceaccount.name}`) return undefined
      return present({
        iss: data.iss,
        sub: data.sub,
        'kubernetes.io/namespace': namespace,
        'kubernetes.io/serviceaccount/name': serviceaccount.name,
        'kubernetes.io/serviceaccount/uid': serviceaccount.uid,
        'kubernetes.io/pod/name': pod?.name,
        'kubernetes.io/pod/uid': pod?.uid,
        'kubernetes.io/node/name': node?.name,
        'kubernetes.io/node/uid': node?.uid,
      } satisfies Of<typeof kubernetesAttributes>)
    },
  },

  /** https://docs.github.com/en/actions/reference/security/oidc */
  'github-actions': {
    types: ['jwt'],
    issueTime: true,
    names: () => Object.keys(githubShape.shape),
    attributes(claims) {
      const { data } = githubShape.safeParse(claims)
      if (!data || !isOfRepository(data)) return undefined
      return present(data)
    },
  },

  /** Any other issuer: OpenID Connect Core 1.0 section 2, RFC 9068 for access tokens. */
  oidc: {
    types: ['jwt', 'at+jwt', 'application/at+jwt'],
    issueTime: true,
    names: ({ require = {}, claims = [] }) => [...new Set([...oidcAttributes, ...Object.keys(require), ...claims])],
    attributes(claims, rules) {
      const meets = Object.entries(rules.require).every(([name, wanted]) => {
        const has = [lift(claims, name) ?? []].flat()
        return [wanted].flat().some((value) => has.includes(value))
      })
      if (!meets) return undefined
      return present(Object.fromEntries(profiles.oidc.names(rules).map((name) => [name, lift(claims, name) ?? undefined])))
    },
    unreadable: (claims, rules) => profiles.oidc.names(rules).filter((name) => lift(claims, name) === null),
  },
}

/** The names of all attributes that a token of this issuer may prove. A condition on another one never holds. */
export const attributesOf = (issuer: Pick<Issuer, 'profile' | 'require' | 'claims'>): ReadonlySet<string> =>
  new Set(profiles[issuer.profile].names(issuer))

/** What is wrong with a condition on another one. */
export const neverProven = 'is nothing that tokens of this issuer prove; where it is of profile oidc, name it under its claims'

/** Whether a token is of the kind that its issuer makes. `typ` is a media type, so its case does not matter (RFC 7515 section 4.1.9). */
export function isOfKind({ typ, headers }: Compact, profile: Profile): boolean {
  return (typ === undefined || profile.types.includes(typ.toLowerCase())) && headers.every((name) => profile.headers?.includes(name) ?? true)
}

const spiffeAttributes = ['sub', 'spiffe/trust_domain', 'spiffe/path'] as const

const kubernetesAttributes = [
  'iss',
  'sub',
  'kubernetes.io/namespace',
  'kubernetes.io/serviceaccount/name',
  'kubernetes.io/serviceaccount/uid',
  'kubernetes.io/pod/name',
  'kubernetes.io/pod/uid',
  'kubernetes.io/node/name',
  'kubernetes.io/node/uid',
] as const

/** Attributes of these names, each of which is looked for. */
type Of<Names extends readonly string[]> = Readonly<Record<Names[number], string | undefined>>

/** What is taken from any OpenID token that has it. More, such as names or addresses of people, has to be asked for. */
const oidcAttributes = ['iss', 'sub', 'azp', 'client_id', 'groups', 'roles']

const text = z.string().min(1).refine(isPrintable)
const named = z.looseObject({ name: text, uid: text })

const kubernetesShape = z.looseObject({
  iss: text,
  sub: text,
  'kubernetes.io': z.looseObject({ namespace: text, serviceaccount: named, pod: named.optional(), node: named.optional() }),
})

const digits = z.string().regex(/^\d{1,20}$/)

/** Strictly what is lifted: the ids never change, the names can be given to somebody else. */
const githubShape = z.object({
  iss: text,
  sub: text,
  repository: text,
  repository_id: digits,
  repository_owner: text,
  repository_owner_id: digits,
  repository_visibility: text.optional(),
  ref: text,
  ref_type: text.optional(),
  ref_protected: text.optional(),
  sha: text,
  workflow_ref: text.optional(),
  job_workflow_ref: text,
  environment: text.optional(),
  runner_environment: text,
  event_name: text,
  run_id: digits,
  run_attempt: digits,
  actor: text.optional(),
  actor_id: digits,
})

/**
 * Whether the subject is of the repository that the other claims name. Two forms: `repo:owner/name:…`, and since July 2026 `repo:owner@id/name@id:…` for new and renamed
 * repositories. A subject that its organisation has made up from other claims is refused: for those `oidc` with `require` says what they prove.
 */
function isOfRepository({
  sub,
  repository,
  repository_id: id,
  repository_owner: owner,
  repository_owner_id: ownerId,
}: z.output<typeof githubShape>): boolean {
  const [claimedOwner, name, ...more] = repository.split('/')
  if (claimedOwner !== owner || !name || more.length > 0) return false
  return [`repo:${repository}:`, `repo:${owner}@${ownerId}/${name}@${id}:`].some((prefix) => sub.startsWith(prefix) && sub.length > prefix.length)
}

/** Without those that the token does not have. */
function present(found: Readonly<Record<string, string | readonly string[] | undefined>>): Attributes {
  return Object.fromEntries(Object.entries(found).filter((entry): entry is [string, string | readonly string[]] => entry[1] !== undefined))
}
