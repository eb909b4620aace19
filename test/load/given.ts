import { connect, type StoreSettings } from '../../src/ledger/connect.ts'
import { createVisitor } from '../console/given.ts'
import type { PeopleIssuer } from '../console/issuer.ts'
import { auditTold, type Finding } from '../support/audit.ts'
import type { Lab } from '../support/lab.ts'
import { audience, makeSite, type RunningBroker, type Site } from '../support/program.ts'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** One call on the built program. */
export async function call(broker: RunningBroker, token: string, method: string, where: string, body?: object): Promise<Answer> {
  const content = body === undefined ? {} : { body: JSON.stringify(body) }
  const headers = { authorization: `Bearer ${token}`, prefer: 'wait=30', ...(body !== undefined && { 'content-type': 'application/json' }) }
  const answer = await fetch(broker.url + where, { method, headers, ...content })
  return { status: answer.status, headers: answer.headers, body: (await answer.json()) as Record<string, unknown> }
}

export const declaration = (grant: 'api' | 'crm') => ({ kind: 'work', purpose: 'a load', duration: '10m', grants: [{ name: grant }] })

export interface Opened {
  readonly id: string
  readonly token: string
  readonly lease: string
}

export function openedOf({ status, body }: Answer): Opened {
  if (status !== 201) throw new Error(`not opened: ${status} ${JSON.stringify(body)}`)
  const { task, task_token, leases } = body as { task: { id: string }; task_token: string; leases: { id: string }[] }
  return { id: task.id, token: task_token, lease: leases[0]!.id }
}

/**
 * A site whose agents may hold and ask for as much as a load needs.
 *
 * @param limits lines of `limits`, such as `in_flight: 8`
 * @param people who sign in to a console that it has then
 */
export async function makeLoadedSite(store: StoreSettings, lab: string, limits = '', people?: PeopleIssuer): Promise<Site> {
  const extra = `limits: { requests_per_second: 100000, burst: 1000000, introspections_per_second: 100000${limits && `, ${limits}`} }\n`
  const site = await makeSite({ store, lab, labTimeout: '25s', extra: extra + (people ? consoleOf(people) : ''), ...(people && peopleOf(people)) })
  const agent = (name: string) =>
    `  ${name}: { issuer: local, match: { sub: "agent:${name}" }, owner: ${name}@example.com, groups: [robots], max_live_leases: 100000 }`
  await site.write(
    'catalogue.yaml',
    `agents:
${agent('bot')}
${agent('rival')}
  stranger: { issuer: local, match: { sub: "agent:stranger" }, owner: stranger@example.com, groups: [] }
kinds: { work: { owner: owner@example.com, max_duration: 30m, grants: [api, crm] } }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  crm: { provider: lab, max_ttl: 20m }
`,
  )
  return site
}

const peopleOf = ({ issuer }: PeopleIssuer) => ({
  issuers: `  - { name: corp, profile: oidc, issuer: "${issuer}" }`,
  operators: '  - { issuer: corp, match: { sub: ann }, roles: [operator, reviewer] }',
})

const consoleOf = ({ clientId, clientSecret }: PeopleIssuer): string =>
  `console: { issuer: corp, client_id: "${clientId}", client_secret: "${clientSecret}" }\n`

/** Signs in at the console of a loaded site, as somebody whom its issuer knows. @returns what a browser sends from then on as its `cookie` */
export async function signInAsAnn(broker: RunningBroker, people: PeopleIssuer): Promise<string> {
  people.always('ann')
  const visitor = createVisitor(`${broker.url}/console`)
  let answer = await visitor.get('')
  for (let to = answer.headers.get('location'); to !== null; to = answer.headers.get('location'))
    // Wherever the broker listens, it is called by its public URL.
    answer = await visitor.get(new URL(to, answer.url).href.replace(audience, broker.url))
  if (answer.status !== 200) throw new Error(`not signed in: ${answer.status} ${await answer.text()}`)
  return `mayfly-session=${visitor.cookies.get('mayfly-session')}`
}

/** As many of the secrets of a load as are looked for one by one. What a broker makes itself is known by its form, all of it. */
const sample = 200

/** What is wrong with the store of a broker that has stopped; no secret stands in it, or in what it told. @param tokens that it was shown */
export async function findingsOf(store: StoreSettings, lab: Lab, broker: RunningBroker, tokens: readonly string[]): Promise<Finding[]> {
  const secrets = (await lab.minted()).slice(-sample).map(({ secret }) => secret)
  const ledger = await connect(store)
  const found = await auditTold(ledger, [...secrets, ...tokens], broker.log())
  await ledger.close()
  return found
}
