import { z } from '@hono/zod-openapi'
import { errorCodes } from '../base/errors.ts'
import { isId } from '../base/ids.ts'
import type { DecisionId, EntryId, LeaseId, RevocationId, StopId, TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import { durationPattern, parseDuration } from '../base/time.ts'
import { leaseStates, taskStates } from '../ledger/states.ts'
import { entryKinds } from '../proof/entry-kinds.ts'

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
  .string('must be a duration between 1s and 24h, such as "90s" or "15m"')
  .max(6, { abort: true })
  .refine((text) => (parseDuration(text) ?? Infinity) <= longestDuration)
  .openapi({ type: 'string', pattern: durationPattern.source, example: '15m' })

/** Years that both the store and RFC 3339 can write, whatever the offset. */
const [earliest, latest] = [Date.parse('0001-01-01T00:00:00Z'), Date.parse('9999-12-31T23:59:59.999Z')]

/** RFC 3339. Answers are always in UTC. */
const Moment = z.iso
  .datetime({ offset: true, abort: true, error: 'must be a moment such as 2026-11-24T09:30:00Z' })
  .max(40)
  .refine((text) => !(Date.parse(text) < earliest || Date.parse(text) > latest), 'must be between the years 1 and 9999, in UTC')
  .openapi({ type: 'string', format: 'date-time', example: '2026-11-24T09:30:00.000Z' })

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
  .custom<DecisionId>((value) => typeof value === 'string' && isId('dec', value), 'must be the id of a decision')
  .openapi({ type: 'string', pattern: '^dec_[0-9a-z]{26}$' })
const EntryIdentifier = z
  .custom<EntryId>((value) => typeof value === 'string' && isId('ent', value), 'must be the id of an entry')
  .openapi({ type: 'string', pattern: '^ent_[0-9a-z]{26}$' })
const RevocationIdentifier = z
  .custom<RevocationId>((value) => typeof value === 'string' && isId('rev', value), 'must be the id of a revocation')
  .openapi({ type: 'string', pattern: '^rev_[0-9a-z]{26}$' })
const StopIdentifier = z
  .custom<StopId>((value) => typeof value === 'string' && isId('stop', value), 'must be the id of a stop')
  .openapi({ type: 'string', pattern: '^stop_[0-9a-z]{26}$' })

const TaskStates = z.enum(taskStates)
const LeaseStates = z.enum(leaseStates)
const AnyJson = z.custom<Json>().openapi({ type: ['object', 'array', 'string', 'number', 'boolean', 'null'] })
const Outcome = z.enum(['permit', 'deny'])
const Digest = z.string().openapi({ pattern: '^sha256:[0-9a-f]{64}$' })

// Path

/** A malformed id cannot be anybody's, so it is answered like an unknown one: 404. */
export const TaskPath = z.object({ id: TaskIdentifier })
export const LeasePath = z.object({ id: LeaseIdentifier })
export const DecisionPath = z.object({ id: DecisionIdentifier })
export const RevocationPath = z.object({ id: RevocationIdentifier })
export const StopPath = z.object({ id: StopIdentifier })
export const EntryPath = z.object({ entry: EntryIdentifier })
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

/** Which tasks or leases are meant. By the names of the catalogue and the configuration as they were when the task was declared. */
export const Selector = z
  .strictObject({
    agent: Name.optional(),
    owner: Name.optional(),
    issuer: Name.optional().openapi({ description: 'By which the declarant was vouched for, as `identity` names it' }),
    kind: Name.optional(),
    grant: Name.optional(),
    provider: Name.optional(),
    everything: z.literal(true).optional(),
  })
  .refine((selector) => Object.keys(selector).length > 0, 'must name something, or say `everything`')
  .refine((selector) => selector.everything === undefined || Object.keys(selector).length === 1, {
    message: 'must stand alone',
    path: ['everything'],
  })
  .openapi('Selector', {
    description:
      'All that agree with everything that it names. With `grant` or `provider` single leases are meant, and their tasks go on; all else means whole tasks',
  })
export type Selector = z.infer<typeof Selector>

/** For how long issuing may be stopped at once: 30 days. Milliseconds. */
const longestStop = 30 * 24 * 3_600_000

const StopDuration = z
  .string('must be a duration between 1s and 720h, such as "8h"')
  .max(6, { abort: true })
  .refine((value) => (parseDuration(value) ?? Infinity) <= longestStop)
  .openapi({ type: 'string', pattern: durationPattern.source, example: '8h' })

const Reason = text(500).min(1)
const dryRunTold = 'must be `confirm` or `count` of a dry run'

export const RevocationRequest = z
  .strictObject({
    selector: Selector,
    dry_run: z.boolean().optional().openapi({ description: 'Only says what would end, and what has to be confirmed' }),
    reason: Reason.optional().openapi({
      description: 'Stays in the ledger; whose tasks and leases end does not read it. Needed unless this is a dry run',
    }),
    confirm: z
      .union([z.string().max(2_048), z.int().min(0)], dryRunTold)
      .optional()
      .openapi({
        description:
          '`confirm` of a dry run, typed by a person; or its `count`: with more than so many to end nothing happens. Needed unless this is a dry run',
      }),
    stop_issuing: StopDuration.optional().openapi({
      description: 'Nothing that the selector means is issued from this commit on, for so long or until lifted',
    }),
  })
  .refine(({ dry_run, reason }) => dry_run === true || reason !== undefined, { message: 'must say why', path: ['reason'] })
  .refine(({ dry_run, confirm }) => dry_run === true || confirm !== undefined, {
    message: dryRunTold,
    path: ['confirm'],
  })
  .openapi('RevocationRequest')
export type RevocationRequest = z.infer<typeof RevocationRequest>

export const StopRequest = z
  .strictObject({
    selector: Selector,
    reason: Reason.openapi({ description: 'Stays in the ledger; who is stopped does not read it' }),
    duration: StopDuration,
  })
  .openapi('StopRequest')
export type StopRequest = z.infer<typeof StopRequest>

export const LiftRequest = z.strictObject({ reason: Reason }).openapi('LiftRequest')
export type LiftRequest = z.infer<typeof LiftRequest>

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

/** The rows of a page, and where it begins: behind the last id of the page before. */
const paging = (cursor: z.ZodType<string>) => ({
  limit: z
    .string()
    .regex(/^([1-9]\d?|[1-4]\d\d|500)$/, 'must be a whole number from 1 to 500')
    .optional()
    .openapi({ type: 'integer', minimum: 1, maximum: 500, default: 50 }),
  cursor: cursor.optional(),
})

/** A time of the list's rows: from `from` on, and before `to`. */
const times = (of: string) => ({
  from: Moment.optional().openapi({ description: `${of} from then on` }),
  to: Moment.optional().openapi({ description: `${of} before then` }),
})
/** Nothing fits times that were mixed up, and an empty answer would read as if nothing had happened. */
const inOrder = ({ from, to }: { from?: string | undefined; to?: string | undefined }) =>
  from === undefined || to === undefined || Date.parse(from) <= Date.parse(to)
const wrongOrder = { message: 'must not be before `from`', path: ['to'] }

export const TaskFilter = z
  .strictObject({
    state: TaskStates.optional(),
    agent: Name.optional(),
    kind: Name.optional(),
    owner: Name.optional(),
    completed: z
      .enum(['false'], 'can only be false')
      .optional()
      .openapi({ description: 'Those that were opened, and end or ended in another way than by being completed: failed, revoked, expired' }),
    ...times('Open at some time'),
    ...paging(TaskIdentifier),
  })
  .refine(inOrder, wrongOrder)
export const LeaseFilter = z
  .strictObject({
    state: LeaseStates.optional(),
    agent: Name.optional(),
    owner: Name.optional(),
    grant: Name.optional(),
    provider: Name.optional(),
    task: TaskIdentifier.optional(),
    stuck: z.enum(['true', 'false']).optional(),
    standing: z.enum(['true', 'false']).optional(),
    alive: z.enum(['true'], 'can only be true').optional().openapi({
      description: 'Not ended: whatever is not proven dead, as those that are `revoking`, and those that only time ends (`lapsing`)',
    }),
    ended_late: Duration.optional().openapi({
      description: 'Ended more than so long after their end was decided or due (`closing_at`); `error` says why',
    }),
    outlived_task: Duration.optional().openapi({
      description: 'Not ended, more than so long after their task had, or should have. `lapsing` leases are given until their own end',
    }),
    ...times('Held by their agent at some time'),
    ...paging(LeaseIdentifier),
  })
  .refine(inOrder, wrongOrder)
export const EntryFilter = z
  .strictObject({
    kind: z.enum(entryKinds, 'must be a kind of entry, such as lease.issued').optional(),
    agent: Name.optional(),
    task: TaskIdentifier.optional(),
    lease: LeaseIdentifier.optional(),
    by: text(2_048)
      .regex(/^operator:./, 'must be operator:ISSUER/SUBJECT')
      .optional()
      .openapi({ description: 'What this operator did: `operator:ISSUER/SUBJECT`' }),
    ...times('Of a time'),
    ...paging(EntryIdentifier),
  })
  .refine(inOrder, wrongOrder)
export const DenialFilter = z
  .strictObject({
    policy: Name.optional().openapi({ description: 'Something of it was forbidden by this policy' }),
    by_default: z
      .enum(['true'], 'can only be true')
      .optional()
      .openapi({ description: 'Something of it was permitted by no policy, and forbidden by none' }),
    agent: Name.optional(),
    task: TaskIdentifier.optional(),
    ...times('Decided'),
    ...paging(DecisionIdentifier),
  })
  .refine(inOrder, wrongOrder)
  .refine(({ policy, by_default }) => policy === undefined || by_default === undefined, {
    message: 'must not stand beside a policy',
    path: ['by_default'],
  })
export const RevocationFilter = z.strictObject({
  ended: z.enum(['true', 'false']).optional().openapi({ description: 'False: those of which something is still alive' }),
  ...paging(RevocationIdentifier),
})
export const StopFilter = z.strictObject({
  in_force: z.enum(['true', 'false']).optional(),
  ...paging(StopIdentifier),
})
export type RevocationFilter = z.infer<typeof RevocationFilter>
export type StopFilter = z.infer<typeof StopFilter>
export type TaskFilter = z.infer<typeof TaskFilter>
export type LeaseFilter = z.infer<typeof LeaseFilter>
export type EntryFilter = z.infer<typeof EntryFilter>
export type DenialFilter = z.infer<typeof DenialFilter>

const AfterEntry = z
  .string()
  .regex(/^(0|[1-9]\d{0,14})$/, 'must be the number of an entry')
  .optional()
  .openapi({ type: 'integer', minimum: 0, description: 'Begins behind the entry with this number; at the beginning where absent' })

/** Of `GET /ledger?follow=true`, which is no page. */
export const FollowQuery = z.strictObject({
  follow: z.literal('true', 'must be true, or absent'),
  after: AfterEntry,
  format: z.literal('ocsf', 'must be ocsf, or absent').optional(),
})

/** The same as OpenAPI has it: `FollowQuery` is read where a page is not asked for. */
export const followParameters = [
  { in: 'query', name: 'follow', schema: { const: true }, description: 'A stream in the place of a page, oldest first; without any filter' },
  { in: 'query', name: 'after', schema: { type: 'integer', minimum: 0 }, description: 'With `follow`: begins behind the entry with this number' },
  { in: 'query', name: 'format', schema: { const: 'ocsf' }, description: 'With `follow`: events of OCSF in the place of lines of the log' },
] as const satisfies readonly { readonly name: keyof z.infer<typeof FollowQuery>; readonly [more: string]: unknown }[]

/** The first log has no number in its address: it was there before there were others. */
export const LogPath = z.object({ log: z.string().regex(/^([2-9]|[1-9]\d{1,8})$/) })

export const LogQuery = z.strictObject({
  after: AfterEntry,
  limit: paging(EntryIdentifier).limit.openapi({ default: 500 }),
})

// Answers

/** Of `reason` and `ended_by`. */
const notToTheEnded = 'Where it was ended with many (`revoked_in`), for operators and reviewers only'

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
    reason: z
      .string()
      .optional()
      .openapi({ description: `What the operator who ended it said. ${notToTheEnded}` }),
    ended_at: Moment.optional(),
    ended_by: z.string().optional().openapi({ description: notToTheEnded }),
    revoked_in: RevocationIdentifier.optional(),
  })
  .openapi('Task')
export type TaskView = z.infer<typeof TaskView>

const EvidenceView = z
  .object({ by: z.enum(['provider', 'broker', 'time']), statement: z.string(), at: Moment })
  .openapi('Evidence', { description: 'What proves that a credential is dead' })

export const LeaseView = z
  .object({
    id: LeaseIdentifier,
    task: TaskIdentifier,
    agent: z.string(),
    owner: z.string(),
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
    closing_at: Moment.optional().openapi({ description: 'When its end was decided, or due' }),
    ended_at: Moment.optional(),
    cause: z.string().optional(),
    reason: z.string().optional().openapi({ description: notToTheEnded }),
    ended_by: z.string().optional().openapi({ description: notToTheEnded }),
    revoked_in: RevocationIdentifier.optional(),
    evidence: EvidenceView.optional(),
    error: z.string().optional().openapi({ description: 'Why the last try to end it that failed did; it stays when a later one succeeds' }),
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
    policies: z
      .array(z.string())
      .openapi({ description: 'Ids of the policies that determined its answers; of a denial also those that permitted something of what was asked' }),
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

const Denied = z
  .array(
    z.object({
      resource: z.string().openapi({ description: 'The grant, or the kind of a task without grants' }),
      policies: z.array(z.string()).openapi({ description: 'Ids of the policies that forbid it' }),
      diagnostics: z
        .array(z.string())
        .openapi({ description: 'Ids of the policies that could not be evaluated; `engine` where there was no answer' }),
    }),
  )
  .openapi({ description: 'What of it was denied. Without policies and diagnostics: no policy permits it' })

/** A decision in a list: what it was about, without its inputs. */
export const DenialView = DecisionView.extend({ task: TaskIdentifier, agent: z.string(), kind: z.string(), denied: Denied }).openapi('Denial')
export type DenialView = z.infer<typeof DenialView>

const Replayed = z.object({ policy_digest: Digest, outcome: Outcome, policies: z.array(z.string()), denied: Denied, same: z.boolean() })

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
    xid: z.string().openapi({
      description: 'The transaction that wrote it, in decimal: with it the whole entry is what the log has as its leaf (docs/verifying.md)',
    }),
    kind: z.string(),
    agent: z.string().optional(),
    task: TaskIdentifier.optional(),
    lease: LeaseIdentifier.optional(),
    decision: DecisionIdentifier.optional(),
    body: AnyJson.openapi({ description: 'The fact itself, without secrets' }),
  })
  .openapi('Entry')
export type EntryView = z.infer<typeof EntryView>

export const ReceiptView = z
  .object({
    entry: EntryIdentifier,
    kind: z.string().openapi({ example: 'lease.issued' }),
    leaf_hash: z.string().openapi({
      description: 'What the entry comes to as a leaf of the log: SHA-256 over a zero byte and its canonical JSON (RFC 6962, RFC 8785), base64',
    }),
  })
  .openapi('Receipt', {
    description:
      'Holds the broker to an entry that it has written: kept, it is checked later against `GET /ledger/{entry}/proof` (docs/verifying.md)',
  })
export type ReceiptView = z.infer<typeof ReceiptView>

/** What was told the ledger for an answer. */
const Receipts = z.array(ReceiptView).openapi({ description: 'Of each entry that the ledger has written for this answer, in the order of the log' })

/** Of an answer that may come when all has happened. */
const ReceiptsOfEnd = z
  .array(ReceiptView)
  .openapi({ description: 'Of each entry that the ledger has written of this end so far, in the order of the log' })

export const LogView = z
  .object({
    number: z.int().openapi({ description: 'From 1' }),
    origin: z.string().openapi({ description: 'What it is called, which is where its tiles are' }),
    key: z.string().optional().openapi({ description: 'Its verifier key, as the store has it: get it from somebody else too' }),
    first: z.int().openapi({ description: 'The number of the entry that it begins with; its own tree begins at 0' }),
    size: z.int(),
    closed: z.boolean(),
    checkpoint: z.string().openapi({ description: 'Its newest signed checkpoint; the final one where it is closed' }),
  })
  .openapi('Log')
export type LogView = z.infer<typeof LogView>

export const Logs = z.object({ items: z.array(LogView) }).openapi('Logs')
export type Logs = z.infer<typeof Logs>

export const LogLines = z.string().openapi('LogLines', {
  description:
    'Each line a JSON object: `number` from 0; `leaf_hash`, what the log has there, which is SHA-256 over a zero byte and the canonical JSON (RFC 8785) of `entry`, base64; `missing` in the place of `entry` where the history does not have it any more; with a decision its `answers`; `checkpoint` where one was signed over the log up to here; `stray`, the id of an entry that the history has right before this one and the log nowhere',
})

export const LedgerCsv = z.string().openapi('LedgerCsv', { description: 'RFC 4180 with a header line; no cell starts a formula' })

export const LedgerEvents = z.string().openapi('LedgerEvents', {
  description:
    'With `follow`: server-sent events, whose `id` is the number of the entry and whose `data` is its line; one that comes back says so in `Last-Event-ID`',
})

export const OpenedTask = z
  .object({
    task: TaskView,
    task_token: z.string().openapi({ description: 'Speaks for this task alone: completing it, further grants, refreshing' }),
    decision: DecisionView,
    leases: z.array(IssuedLease),
    receipts: Receipts,
  })
  .openapi('OpenedTask')
export type OpenedTask = z.infer<typeof OpenedTask>

export const ShownTask = z
  .object({
    task: TaskView,
    leases: z.array(LeaseView).openapi({ description: 'Those that have not ended, and the newest 1,000; `GET /leases?task=` has all' }),
    decisions: z.array(DecisionView).openapi({ description: 'The newest 1,000' }),
  })
  .openapi('ShownTask')
export type ShownTask = z.infer<typeof ShownTask>

export const AddedLease = z.object({ decision: DecisionView, lease: IssuedLease, receipts: Receipts }).openapi('AddedLease')
export type AddedLease = z.infer<typeof AddedLease>

export const RenewedTask = z.object({ task: TaskView, decision: DecisionView, leases: z.array(LeaseView), receipts: Receipts }).openapi('RenewedTask')
export type RenewedTask = z.infer<typeof RenewedTask>

const Count = z.int().min(0)

export const ClosedTask = z
  .object({
    task: TaskView,
    leases: z.array(LeaseView).openapi({ description: 'Those that have not ended, and the newest 1,000' }),
    counts: z.partialRecord(LeaseStates, Count).openapi({ description: 'How many are in which state, of all leases that the task was ever given' }),
    ended: z.boolean().openapi({ description: 'Whether every lease is ended' }),
    receipts: ReceiptsOfEnd,
  })
  .openapi('ClosedTask')
export type ClosedTask = z.infer<typeof ClosedTask>

export const ClosedLease = z.object({ lease: LeaseView, ended: z.boolean(), receipts: ReceiptsOfEnd }).openapi('ClosedLease')
export type ClosedLease = z.infer<typeof ClosedLease>

const UnknownNames = z
  .array(z.string())
  .optional()
  .openapi({ description: 'What the selector names that the broker has nothing by the name of, such as `agent invoice-bt`: most likely a slip' })

export const RevocationPlan = z
  .object({
    dry_run: z.literal(true),
    tasks: Count.openapi({ description: 'Open tasks that would end; with `grant` or `provider`, tasks that would lose leases' }),
    leases: z.array(z.object({ provider: z.string(), revocation: z.enum(['provider', 'deny', 'expiry']), count: Count })),
    ending_already: Count.openapi({ description: 'Leases beside these that are meant, are ending already, and are not proven dead' }),
    count: Count.openapi({ description: 'Tasks; with `grant` or `provider`, leases' }),
    confirm: z.string(),
    unknown: UnknownNames,
  })
  .openapi('RevocationPlan')
export type RevocationPlan = z.infer<typeof RevocationPlan>

export const RevocationView = z
  .object({
    id: RevocationIdentifier,
    selector: Selector,
    reason: z.string(),
    by: z.string(),
    state: z.enum(['ending', 'proving', 'ended']).openapi({
      description:
        '`ending`: there may be more to begin with; `proving`: all is being ended, and not all of it is proven dead; `ended`: the last of it is dead',
    }),
    started_at: Moment,
    ended_at: Moment.optional(),
    tasks: z.partialRecord(TaskStates, Count).optional().openapi({ description: 'How many of them are in which state' }),
    leases: z.partialRecord(LeaseStates, Count).optional(),
    stuck: Count.optional().openapi({ description: 'Leases whose provider has failed to end them for too long: `GET /leases?stuck=true`' }),
    ending_already: Count.optional().openapi({
      description:
        'Leases beside these that it means, whose end something else has begun, and that are not proven dead. It is not `ended` before they are',
    }),
  })
  .openapi('Revocation')
export type RevocationView = z.infer<typeof RevocationView>

export const StartedRevocation = RevocationView.extend({
  stop: StopIdentifier.optional().openapi({ description: 'With `stop_issuing`' }),
  receipts: Receipts,
}).openapi('StartedRevocation')
export type StartedRevocation = z.infer<typeof StartedRevocation>

export const StopView = z
  .object({
    id: StopIdentifier,
    selector: Selector,
    reason: z.string(),
    by: z.string(),
    began_at: Moment,
    until: Moment,
    lifted_at: Moment.optional(),
    lifted_by: z.string().optional(),
    lift_reason: z.string().optional(),
  })
  .openapi('Stop')
export type StopView = z.infer<typeof StopView>

/** As it was just put, or lifted. */
export const ChangedStop = StopView.extend({ unknown: UnknownNames, receipts: Receipts }).openapi('ChangedStop')
export type ChangedStop = z.infer<typeof ChangedStop>

/** One page, newest first; `next` is the cursor of the following page, or null on the last. */
export interface Page<Item> {
  items: Item[]
  next: string | null
}
const pageOf = <Item extends z.ZodType>(name: string, item: Item) => z.object({ items: z.array(item), next: z.string().nullable() }).openapi(name)
export const TaskPage = pageOf('TaskPage', TaskView)
export const LeasePage = pageOf('LeasePage', LeaseView)
export const EntryPage = pageOf('EntryPage', EntryView)
export const RevocationPage = pageOf('RevocationPage', RevocationView)
export const StopPage = pageOf('StopPage', StopView)
export const DenialPage = pageOf('DenialPage', DenialView)

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
    log: z.object({ state: Condition }).openapi({ description: 'Whether the ledger is signed by this broker, or nothing stands in the way of it' }),
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
      authorization_details: z
        .array(z.strictObject({ type: z.literal('urn:mayfly:grant'), identifier: z.string(), parameters: z.record(z.string(), z.string()) }))
        .readonly()
        .optional()
        .openapi({
          description: 'RFC 9396 section 9.2: the grant and the parameters that the token is narrowed to. Absent where the grant has none',
        }),
    }),
  ])
  .openapi('Introspection')
export type Introspection = z.infer<typeof Introspection>

/** RFC 9457, `application/problem+json`. */
export const ProblemDetails = z
  .object({
    type: z.string().openapi({ description: 'A stable URI: `urn:mayfly:problem:` and the code' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().openapi({ description: 'Safe to show' }),
    code: z.enum(errorCodes),
    retry: z.enum(['no', 'same', 'later', 'new_token']).openapi({
      description:
        '`same`: send the same request again; `later`: the same, but not at once; both after `retry-after` seconds where the answer has it; `new_token`: with a fresh workload token',
    }),
    decision: DecisionIdentifier.optional(),
    task: TaskIdentifier.optional(),
    receipts: z.array(ReceiptView).optional().openapi({ description: 'Of what the ledger was told of this refusal, or of what failed' }),
    errors: z
      .array(z.object({ pointer: z.string(), message: z.string() }))
      .optional()
      .openapi({ description: 'Faulty fields: a JSON pointer (RFC 6901) into the body, `?name` for a query parameter, or the name of a header' }),
    request_id: z.string(),
  })
  .openapi('Problem')
export type ProblemDetails = z.infer<typeof ProblemDetails>
