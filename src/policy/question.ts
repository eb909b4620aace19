import type { Actor } from '../identity/actor.ts'
import type { CedarRequest } from './engine.ts'
import type { Agent, AskedGrant, Kind } from './entry.ts'
import { type Action, type Inquiry, lastingOf } from './inquiry.ts'

type Entity = CedarRequest['entities'][number]

/** A question without the time at which it is asked. */
export type TimelessQuestion = CedarRequest & { readonly context: { readonly now?: never } }

/** What is asked about one grant of an inquiry, or about its kind. */
export interface Asked {
  readonly action: Action
  /** Name of the grant or, for `declare`, of the kind. */
  readonly resource: string
  readonly timeless: TimelessQuestion
}

/** One question for each grant; for a task without grants one about its kind, so that there is never a decision that nobody was asked for. */
export function questionsOf(inquiry: Inquiry): readonly Asked[] {
  const { action, kind, duration, grants } = inquiry
  const entities = [agentEntity(inquiry.agent, inquiry.actor), ...inquiry.agent.groups.map((group) => entity('Group', group)), kindEntity(kind)]
  const question = (action: Action, resource: CedarRequest['resource'], ttl: number, asked: readonly Entity[]): TimelessQuestion => ({
    principal: { type: 'Agent', id: inquiry.agent.name },
    action: { type: 'Action', id: action },
    resource,
    context: {
      kind: { __entity: { type: 'Kind', id: kind.name } },
      duration: milliseconds(duration),
      ttl: milliseconds(ttl),
      ask: { __entity: askId },
      pop: 'none',
    },
    entities: [...entities, ...asked],
  })
  if (grants.length === 0) {
    return [{ action: 'declare', resource: kind.name, timeless: question('declare', { type: 'Kind', id: kind.name }, duration, [askEntity({})]) }]
  }
  return grants.map((asked) => ({
    action,
    resource: asked.grant.name,
    timeless: question(action, { type: 'Grant', id: asked.grant.name }, lastingOf(inquiry, asked), [
      grantEntity(asked, kind),
      askEntity(asked.parameters),
    ]),
  }))
}

/** The question as it is asked at this time. */
export const askedAt = (question: TimelessQuestion, now: Date): CedarRequest => ({
  ...question,
  context: { ...question.context, now: moment(now) },
})

/** Cedar's datetime. */
export const moment = (time: Date) => ({ __extn: { fn: 'datetime', arg: time.toISOString() } })

/** The parameters that were asked for are the tags of this one entity. */
const askId = { type: 'Ask', id: 'ask' } as const

function agentEntity(agent: Agent, actor: Actor): Entity {
  const trustDomain = actor.trustDomain === undefined ? {} : { trust_domain: actor.trustDomain }
  return {
    uid: { type: 'Agent', id: agent.name },
    attrs: { owner: agent.owner, issuer: actor.issuer, ...trustDomain },
    parents: agent.groups.map((id) => ({ type: 'Group', id })),
    tags: tagsOf(agent, actor),
  }
}

/** The attributes of the actor that its agent's entry lists. */
function tagsOf(agent: Agent, actor: Actor): Record<string, string> {
  const present = agent.tags.filter((name) => Object.hasOwn(actor.attributes, name))
  return Object.fromEntries(present.map((name) => [name, tagOf(actor.attributes[name]!)]))
}

/**
 * Cedar's tags are text: a list becomes its JSON text, such as `["a","b"]`. Each quote in it begins or ends an element, so that `like "[*\"a\"*]"` holds where "a" is
 * one, and no element or text can pretend to hold another: quotes and backslashes within a list, and within a text that begins like one, are `\u0022` and `\u005c`.
 */
function tagOf(value: string | readonly string[]): string {
  if (typeof value !== 'string') return JSON.stringify(value).replaceAll(/\\(["\\])/g, (_, mark: string) => byNumber[mark]!)
  return value.startsWith('[') ? value.replaceAll(/["\\]/g, (mark) => byNumber[mark]!) : value
}

const byNumber: Readonly<Record<string, string>> = { '"': String.raw`\u0022`, '\\': String.raw`\u005c` }

const kindEntity = (kind: Kind): Entity => ({ ...entity('Kind', kind.name), attrs: { owner: kind.owner } })

/** A grant is in the kind of the task that asks for it, and in no other that lists it: a policy about one kind never speaks for another. */
const grantEntity = ({ grant }: AskedGrant, kind: Kind): Entity => ({
  uid: { type: 'Grant', id: grant.name },
  attrs: { provider: grant.provider, sensitivity: grant.sensitivity, standing: grant.standing },
  parents: [{ type: 'Kind', id: kind.name }],
})

const askEntity = (parameters: Readonly<Record<string, string>>): Entity => ({ uid: askId, attrs: {}, parents: [], tags: { ...parameters } })

const entity = (type: string, id: string): Entity => ({ uid: { type, id }, attrs: {}, parents: [] })

/** Cedar's duration. It has no fractions below this unit. */
const milliseconds = (count: number) => ({ __extn: { fn: 'duration', arg: `${Math.floor(count)}ms` } })
