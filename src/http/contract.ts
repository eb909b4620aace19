import { z } from '@hono/zod-openapi'
import type { ErrorCode } from '../base/errors.ts'
import { isId } from '../base/ids.ts'
import type { DecisionId, EntryId, LeaseId, TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import { durationPattern, parseDuration } from '../base/time.ts'
import type { LeaseState, TaskState } from '../ledger/records.ts'

/*
 * Every shape that crosses the wire, once: what requests are parsed with, what answers are typed by, what /openapi.json is made of.
 *
 * Nothing is transformed here: the inferred types are the wire itself, so that client and broker share them. Requests are strict objects
 * (an unknown key is a fault, not a silent loss); answers are open ones, because additions to them must not break anybody.
 */

// Words

/** What a task may be told to take: 24 hours. The shortest is a second. Milliseconds. */
export const longestDuration = 24 * 3_600_000

/** A duration such as `"90s"`, `"15m"`, `"2h"`, from a second to 24 hours. */
const Duration = z
  .string()
  .max(6)
  .refine((text) => (parseDuration(text) ?? Infinity) <= longestDuration, 'must be a duration between 1s and 24h, such as "90s" or "15m"')
  .openapi({ type: 'string', pattern: durationPattern.source, example: '15m' })

/** RFC 3339. Answers are always in UTC. */
const Moment = z.iso.datetime({ offset: true }).max(40).openapi({ type: 'string', format: 'date-time', example: '2026-11-24T09:30:00.000Z' })

/** Neither control characters, which garble a reviewer's terminal and which Postgres cannot keep (NUL), nor halves of a surrogate pair. */
const unprintable = /[^\P{Cc}\n\t]|\p{Cs}/u

const text = (longest: number) =>
  z
    .string()
    .max(longest)
    .refine((value) => !unprintable.test(value), 'must not hold control characters')

/** The name of something in the catalogue or the configuration. */
const Name = text(128).min(1)

const Parameters = z
  .record(text(64).min(1), text(1_024))
  .refine((entries) => Object.keys(entries).length <= 32, 'must not have more than 32 entries')
  .openapi({ maxProperties: 32 })

const Labels = z
  .record(text(64).min(1), text(256))
  .refine((entries) => Object.keys(entries).length <= 32, 'must not have more than 32 entries')
  .openapi({ maxProperties: 32, example: { run: '8841' } })

const TaskIdentifier = z
  .custom<TaskId>((value) => typeof value === 'string' && isId('task', value), 'must be the id of a task')
  .openapi({ type: 'string', pattern: '^task_[0-9a-z]{26}$' })
const LeaseIdentifier = z
  .custom<LeaseId>((value) => typeof value === 'string' && isId('lease', value), 'must be the id of a lease')
  .openapi({ type: 'string', pattern: '^lease_[0-9a-z]{26}$' })
const DecisionIdentifier = z
  .custom<DecisionId>((value) => typeof value === 'string' && isId('dec', value))
  .openapi({ type: 'string', pattern: '^dec_[0-9a-z]{26}$' })
const EntryIdentifier = z
  .custom<EntryId>((value) => typeof value === 'string' && isId('ent', value))
  .openapi({ type: 'string', pattern: '^ent_[0-9a-z]{26}$' })

// Restated here and not imported: the client needs this file without the store. `satisfies` and views.ts keep both lists equal.
const TaskStates = z.enum(['denied', 'open', 'closing', 'completed', 'failed', 'revoked', 'expired'] as const satisfies readonly TaskState[])
const LeaseStates = z.enum(['reserved', 'active', 'revoking', 'lapsing', 'revoked', 'expired', 'failed'] as const satisfies readonly LeaseState[])
const AnyJson = z.custom<Json>().openapi({ type: ['object', 'array', 'string', 'number', 'boolean', 'null'] })
const Outcome = z.enum(['permit', 'deny'])
const Digest = z.string().openapi({ pattern: '^sha256:[0-9a-f]{64}$' })

// Path

/** A malformed id cannot be anybody's, so it is answered like an unknown one: 404. */
export const TaskPath = z.object({ id: TaskIdentifier })
export const LeasePath = z.object({ id: LeaseIdentifier })
export const DecisionPath = z.object({ id: DecisionIdentifier })
export const PolicyPath = z.object({ digest: Digest.regex(/^sha256:[0-9a-f]{64}$/) })

// Requests

/** Either a duration or a deadline, or neither (the kind's own maximum). */
const timing = { duration: Duration.optional(), deadline: Moment.optional() }
const oneTiming = { message: 'must not stand beside a duration', path: ['deadline'] }
const atMostOne = (asked: { duration?: string | undefined; deadline?: string | undefined }) =>
  asked.duration === undefined || asked.deadline === undefined

export const GrantRequest = z
  .strictObject({ name: Name, parameters: Parameters.optional(), ttl: Duration.optional() })
  .openapi('GrantRequest', { description: 'A grant of the catalogue, by name' })
export type GrantRequest = z.infer<typeof GrantRequest>

export const Declaration = z
  .strictObject({
    kind: Name,
    purpose: text(1_000).optional().openapi({ description: 'For people; never decides' }),
    ...timing,
    grants: z.array(GrantRequest).max(16).optional(),
    labels: Labels.optional(),
  })
  .refine(atMostOne, oneTiming)
  .openapi('Declaration', { description: 'What POST /tasks is told: all grants are given, or none' })
export type Declaration = z.infer<typeof Declaration>

export const RenewRequest = z.strictObject(timing).refine(atMostOne, oneTiming).openapi('RenewRequest')
export type RenewRequest = z.infer<typeof RenewRequest>

export const TaskRevocation = z.strictObject({ reason: text(500).min(1) }).openapi('TaskRevocation')
export type TaskRevocation = z.infer<typeof TaskRevocation>

export const LeaseRevocation = z.strictObject({ reason: text(500).min(1).optional() }).openapi('LeaseRevocation')
export type LeaseRevocation = z.infer<typeof LeaseRevocation>

/** Calls that need no body accept none, or an empty object. */
export const Nothing = z.strictObject({}).openapi('Nothing')

export const IntrospectionRequest = z
  .object({ token: z.string().min(1).max(16_384), token_type_hint: z.string().max(64).optional() })
  .openapi('IntrospectionRequest', { description: 'RFC 7662 section 2.1; other parameters are ignored, as it demands' })

export const Idempotency = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters')
    .optional()
    .openapi({ description: 'A retry with the same key and body ends what the lost answer carried and mints anew for the same task' }),
})

export const Preference = z.object({
  prefer: z
    .string()
    .max(256)
    .optional()
    .openapi({ description: '`wait=N`: how many seconds to wait for the ends, 5 by default, at most 30 (RFC 7240)' }),
})

// Filters

const paging = {
  limit: z
    .string()
    .regex(/^[1-9]\d{0,2}$/, 'must be a whole number from 1 to 500')
    .refine((value) => Number(value) <= 500, 'must be a whole number from 1 to 500')
    .optional()
    .openapi({ type: 'integer', minimum: 1, maximum: 500, default: 50 }),
  cursor: z
    .string()
    .regex(/^[\w-]{1,128}$/, 'must be the `next` of the page before')
    .optional(),
}

export const TaskFilter = z.strictObject({
  state: TaskStates.optional(),
  agent: Name.optional(),
  kind: Name.optional(),
  owner: Name.optional(),
  ...paging,
})
export const LeaseFilter = z.strictObject({
  state: LeaseStates.optional(),
  agent: Name.optional(),
  grant: Name.optional(),
  provider: Name.optional(),
  task: TaskIdentifier.optional(),
  stuck: z.enum(['true', 'false']).optional(),
  standing: z.enum(['true', 'false']).optional(),
  ...paging,
})
export const EntryFilter = z.strictObject({
  kind: Name.optional(),
  agent: Name.optional(),
  task: TaskIdentifier.optional(),
  lease: LeaseIdentifier.optional(),
  from: Moment.optional(),
  to: Moment.optional(),
  ...paging,
})
export type TaskFilter = z.infer<typeof TaskFilter>
export type LeaseFilter = z.infer<typeof LeaseFilter>
export type EntryFilter = z.infer<typeof EntryFilter>

// Answers

export const TaskView = z
  .object({
    id: TaskIdentifier,
    state: TaskStates,
    kind: z.string(),
    agent: z.string(),
    owner: z.string(),
    purpose: z.string(),
    labels: z.record(z.string(), z.string()),
    opened_at: Moment,
    deadline: Moment,
    cause: z.string().optional().openapi({ description: 'Why it ended, or is ending' }),
    reason: z.string().optional().openapi({ description: 'What the operator who ended it said' }),
    ended_at: Moment.optional(),
    ended_by: z.string().optional(),
  })
  .openapi('Task')
export type TaskView = z.infer<typeof TaskView>

export const EvidenceView = z
  .object({ by: z.enum(['provider', 'broker', 'time']), statement: z.string(), at: Moment })
  .openapi('Evidence', { description: 'What proves that a credential is dead' })
export type EvidenceView = z.infer<typeof EvidenceView>

export const LeaseView = z
  .object({
    id: LeaseIdentifier,
    task: TaskIdentifier,
    agent: z.string(),
    grant: z.string(),
    provider: z.string(),
    state: LeaseStates,
    revocation: z.enum(['provider', 'deny', 'expiry']).openapi({
      description: 'How it can be ended early: `provider` at the source, `deny` by a denial that propagates, `expiry` not at all: only time ends it',
    }),
    parameters: z.record(z.string(), z.string()),
    issued_at: Moment.optional(),
    expires_at: Moment,
    standing: z.literal(true).optional().openapi({ description: 'The secret behind it lives on: it was lent, and cannot be ended' }),
    outlives_revocation: z.array(z.string()).optional().openapi({
      description: 'What the credential may be used for that goes on when it is dead, such as an open connection: by its names at the provider',
    }),
    ended_at: Moment.optional(),
    cause: z.string().optional(),
    reason: z.string().optional(),
    ended_by: z.string().optional(),
    evidence: EvidenceView.optional(),
    error: z.string().optional().openapi({ description: 'Why the last try to end it failed' }),
    stuck_since: Moment.optional().openapi({ description: 'Ending it has failed for longer than the alarm limit; it is still being tried' }),
  })
  .openapi('Lease')
export type LeaseView = z.infer<typeof LeaseView>

export const CredentialView = z
  .discriminatedUnion('type', [
    z.object({ type: z.literal('bearer_token'), token: z.string() }),
    z.object({ type: z.literal('username_password'), username: z.string(), password: z.string() }),
    z.object({
      type: z.literal('aws_session'),
      access_key_id: z.string(),
      secret_access_key: z.string(),
      session_token: z.string(),
      expiration: Moment,
    }),
    z.object({ type: z.literal('fields'), fields: z.record(z.string(), z.string()) }),
  ])
  .openapi('Credential', { description: 'Shown once, in this answer' })
export type CredentialView = z.infer<typeof CredentialView>

export const IssuedLease = LeaseView.extend({ credential: CredentialView }).openapi('IssuedLease')
export type IssuedLease = z.infer<typeof IssuedLease>

const ObligationsView = z.object({ max_ttl: Duration.optional() }).openapi('Obligations')

export const DecisionView = z
  .object({
    id: DecisionIdentifier,
    action: z.enum(['issue', 'renew', 'declare']),
    outcome: Outcome,
    policies: z.array(z.string()).openapi({ description: 'Ids of the policies that determined it' }),
    policy_digest: Digest,
    obligations: ObligationsView,
    decided_at: Moment,
  })
  .openapi('Decision')
export type DecisionView = z.infer<typeof DecisionView>

export const DecisionDetail = DecisionView.extend({
  task: TaskIdentifier,
  agent: z.string(),
  kind: z.string(),
  answers: z.array(
    z.object({
      action: z.enum(['issue', 'renew', 'declare']),
      resource: z.string(),
      outcome: Outcome,
      policies: z.array(z.string()),
      obligations: ObligationsView,
      diagnostics: z.array(z.string()),
      input: z.string().openapi({ description: "The policy engine's whole input, canonical JSON (RFC 8785)" }),
    }),
  ),
}).openapi('DecisionDetail')
export type DecisionDetail = z.infer<typeof DecisionDetail>

const Replayed = z.object({ policy_digest: Digest, outcome: Outcome, policies: z.array(z.string()), same: z.boolean() })

export const ReplayView = z
  .object({
    decision: DecisionDetail,
    archived: Replayed.openapi({ description: 'The same input on the policy set that decided then' }),
    current: Replayed.openapi({ description: "The same input on today's policy set" }),
  })
  .openapi('Replay')
export type ReplayView = z.infer<typeof ReplayView>

export const PolicySetView = z.object({ digest: Digest, document: AnyJson.openapi({ description: 'As archived' }) }).openapi('PolicySet')
export type PolicySetView = z.infer<typeof PolicySetView>

export const EntryView = z
  .object({
    id: EntryIdentifier,
    at: Moment,
    kind: z.string(),
    agent: z.string().optional(),
    task: TaskIdentifier.optional(),
    lease: LeaseIdentifier.optional(),
    decision: DecisionIdentifier.optional(),
    body: AnyJson.openapi({ description: 'The fact itself, without secrets' }),
  })
  .openapi('Entry')
export type EntryView = z.infer<typeof EntryView>

export const LedgerCsv = z.string().openapi('LedgerCsv', { description: 'RFC 4180 with a header line; no cell starts a formula' })

export const OpenedTask = z
  .object({
    task: TaskView,
    task_token: z.string().openapi({ description: 'Speaks for this task alone: completing it, further grants, refreshing' }),
    decision: DecisionView,
    leases: z.array(IssuedLease),
  })
  .openapi('OpenedTask')
export type OpenedTask = z.infer<typeof OpenedTask>

export const ShownTask = z.object({ task: TaskView, leases: z.array(LeaseView), decisions: z.array(DecisionView) }).openapi('ShownTask')
export type ShownTask = z.infer<typeof ShownTask>

export const AddedLease = z.object({ decision: DecisionView, lease: IssuedLease }).openapi('AddedLease')
export type AddedLease = z.infer<typeof AddedLease>

export const RenewedTask = z.object({ task: TaskView, decision: DecisionView, leases: z.array(LeaseView) }).openapi('RenewedTask')
export type RenewedTask = z.infer<typeof RenewedTask>

export const ClosedTask = z
  .object({ task: TaskView, leases: z.array(LeaseView), ended: z.boolean().openapi({ description: 'Whether every lease is ended' }) })
  .openapi('ClosedTask')
export type ClosedTask = z.infer<typeof ClosedTask>

export const ClosedLease = z.object({ lease: LeaseView, ended: z.boolean() }).openapi('ClosedLease')
export type ClosedLease = z.infer<typeof ClosedLease>

/** One page, newest first; `next` is the cursor of the following page, or null on the last. */
export interface Page<Item> {
  items: Item[]
  next: string | null
}
const pageOf = <Item extends z.ZodType>(name: string, item: Item) => z.object({ items: z.array(item), next: z.string().nullable() }).openapi(name)
export const TaskPage = pageOf('TaskPage', TaskView)
export const LeasePage = pageOf('LeasePage', LeaseView)
export const EntryPage = pageOf('EntryPage', EntryView)

/** RFC 7517. */
export const KeySet = z.object({ keys: z.array(z.record(z.string(), z.unknown())) }).openapi('KeySet')
export type KeySet = z.infer<typeof KeySet>

/** What OpenID Connect Discovery 1.0 calls provider metadata, as far as it is true of a broker that nobody logs in to. */
export const Metadata = z
  .object({
    issuer: z.string(),
    jwks_uri: z.string(),
    introspection_endpoint: z.string(),
    introspection_endpoint_auth_methods_supported: z.array(z.string()),
    response_types_supported: z.array(z.string()),
    subject_types_supported: z.array(z.string()),
    id_token_signing_alg_values_supported: z.array(z.string()),
    service_documentation: z.string(),
  })
  .openapi('Metadata')
export type Metadata = z.infer<typeof Metadata>

export const Liveness = z.object({ status: z.literal('ok') }).openapi('Liveness')

const Condition = z.enum(['ok', 'failing'])

/** What the broker can do right now. Only a store that does not answer and a reaper that stands still make it unready. */
export const Readiness = z
  .object({
    status: z.enum(['ready', 'not_ready']),
    store: Condition,
    reaper: z.object({ state: Condition, last_lap_seconds: z.number() }),
    issuers: z.array(z.object({ name: z.string(), state: Condition })),
    providers: z.array(z.object({ name: z.string(), state: Condition })),
    clock: z
      .object({ state: Condition, seconds_apart: z.number() })
      .optional()
      .openapi({ description: "How far the store's clock is ahead of this broker's. Absent while the store does not answer" }),
    stuck_leases: z.int().optional().openapi({ description: 'Absent while the store does not answer' }),
    oldest_unfinished_revocation_seconds: z.number().optional(),
  })
  .openapi('Readiness')
export type Readiness = z.infer<typeof Readiness>

/** RFC 7662 section 2.2: whatever is unknown, ended or not for the caller's audience is only `{"active": false}`. */
export const Introspection = z
  .union([
    z.object({ active: z.literal(false) }),
    z.object({
      active: z.literal(true),
      token_type: z.literal('Bearer'),
      iss: z.string(),
      sub: z.string(),
      aud: z.string(),
      client_id: z.string(),
      scope: z.string(),
      jti: LeaseIdentifier,
      iat: z.int(),
      exp: z.int(),
      task: TaskIdentifier,
      policy_digest: Digest,
    }),
  ])
  .openapi('Introspection')
export type Introspection = z.infer<typeof Introspection>

const ErrorCodes = z.enum([
  'invalid_request',
  'invalid_token',
  'denied',
  'agent_unknown',
  'forbidden',
  'not_found',
  'method_not_allowed',
  'conflict',
  'in_flight',
  'too_large',
  'unsupported_media_type',
  'unknown_kind',
  'unknown_grant',
  'idempotency_mismatch',
  'rate_limited',
  'timed_out',
  'internal',
  'provider_failed',
  'provider_unavailable',
  'store_unavailable',
] as const satisfies readonly ErrorCode[])

/** RFC 9457, `application/problem+json`. */
export const ProblemDetails = z
  .object({
    type: z.string().openapi({ description: 'A stable URI: `urn:mayfly:problem:` and the code' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().openapi({ description: 'Safe to show' }),
    code: ErrorCodes,
    retry: z.enum(['no', 'same', 'later', 'new_token']).openapi({
      description: '`same`: send the same request again; `later`: after a while; `new_token`: with a fresh workload token',
    }),
    decision: DecisionIdentifier.optional(),
    task: TaskIdentifier.optional(),
    errors: z
      .array(z.object({ pointer: z.string(), message: z.string() }))
      .optional()
      .openapi({ description: 'Faulty fields: a JSON pointer (RFC 6901) into the body, `?name` for a query parameter, or the name of a header' }),
    request_id: z.string(),
  })
  .openapi('Problem')
export type ProblemDetails = z.infer<typeof ProblemDetails>
