import { sql } from 'drizzle-orm'
import { bigint, boolean, check, customType, index, integer, jsonb, pgTable, primaryKey, text, timestamp } from 'drizzle-orm/pg-core'
import { leaseStates, taskStates } from './states.ts'

/** Postgres' 64-bit transaction id: what tells a settled row from one whose transaction may still be open (see reference design of the sequencer). */
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })

/** Hashes. They cross the drivers as hexadecimal text, about which both agree. */
const bytes = customType<{ data: Buffer }>({ dataType: () => 'bytea' })

/** Milliseconds are what JavaScript can hold: finer ones would not survive the way there and back. */
const moment = (name: string) => timestamp(name, { withTimezone: true, precision: 3 })

const oneOf = (column: string, values: readonly string[]) => sql.raw(`${column} in (${values.map((value) => `'${value}'`).join(', ')})`)

/** Declared units of work, the refused ones too. */
export const tasks = pgTable(
  'tasks',
  {
    id: text('id').primaryKey(),
    state: text('state', { enum: taskStates }).notNull(),
    kind: text('kind').notNull(),
    agent: text('agent').notNull(),
    owner: text('owner').notNull(),
    actor: jsonb('actor').notNull(),
    purpose: text('purpose').notNull(),
    labels: jsonb('labels').notNull(),
    /** SHA-256 of the task token. Null for a task that was denied. */
    tokenHash: text('token_hash'),
    openedAt: moment('opened_at').notNull().defaultNow(),
    deadline: moment('deadline').notNull(),
    /** The final state that a closing task goes to once its last lease has ended. */
    outcome: text('outcome', { enum: taskStates }),
    cause: text('cause'),
    reason: text('reason'),
    endedBy: text('ended_by'),
    closingAt: moment('closing_at'),
    endedAt: moment('ended_at'),
    /** Which revocation of many ended it, where one did. */
    revokedIn: text('revoked_in'),
    /** Leases of this task that have not ended: counted here so that two of them ending at once cannot both think that another is left. */
    liveLeases: integer('live_leases').notNull().default(0),
    /** Leases ever announced: only grows. Whoever closes a task proves with it that no lease was announced behind its snapshot. */
    announcedLeases: integer('announced_leases').notNull().default(0),
  },
  (table) => [
    check('tasks_state', oneOf('state', taskStates)),
    check('tasks_live_leases', sql`live_leases >= 0`),
    // Those that are open. Not by their state, see `leases_expiring`.
    index('tasks_due')
      .on(table.deadline)
      .where(sql`closing_at is null and ended_at is null`),
    // A page of tasks reads one of these backwards, whatever is asked for: it costs what it shows, not what there is.
    index('tasks_by_agent').on(table.agent, table.id),
    index('tasks_by_kind').on(table.kind, table.id),
    index('tasks_by_owner').on(table.owner, table.id),
    index('tasks_by_state').on(table.state, table.id),
    index('tasks_not_completed')
      .on(table.id)
      .where(sql`outcome in ('failed', 'revoked', 'expired')`),
    index('tasks_not_completed_by_agent')
      .on(table.agent, table.id)
      .where(sql`outcome in ('failed', 'revoked', 'expired')`),
    index('tasks_not_completed_by_owner')
      .on(table.owner, table.id)
      .where(sql`outcome in ('failed', 'revoked', 'expired')`),
    index('tasks_by_revocation')
      .on(table.revokedIn, table.state)
      .where(sql`revoked_in is not null`),
    // Which of those that have ended were open at a moment. Writing it costs ten times what another index does, so only long lives are in it; short ones
    // are found by when they began.
    index('tasks_of_long_life')
      .using('gist', sql`tstzrange(opened_at, ended_at)`)
      .where(sql`ended_at - opened_at > interval '15 minutes'`),
  ],
)

/** One issued credential each, and its time. The lease table is the queue: `due_at` says when the reaper has to look at a row. */
export const leases = pgTable(
  'leases',
  {
    id: text('id').primaryKey(),
    taskId: text('task_id')
      .notNull()
      .references(() => tasks.id),
    decisionId: text('decision_id').notNull(),
    agent: text('agent').notNull(),
    /** Of its task, so that the leases of an owner have an index. A broker from before this column leaves it empty. */
    owner: text('owner').notNull().default(''),
    grant: text('grant_name').notNull(),
    provider: text('provider').notNull(),
    /** Of its provider: another may be given its name. A broker from before this column leaves it empty. */
    providerKind: text('provider_kind'),
    local: boolean('local').notNull(),
    revocation: text('revocation', { enum: ['provider', 'deny', 'expiry'] }).notNull(),
    standing: boolean('standing').notNull(),
    /** What goes on working when the credential is dead, by its names at the provider. A broker from before this column promised that nothing does. */
    outlivesRevocation: jsonb('outlives_revocation').notNull().default([]),
    state: text('state', { enum: leaseStates }).notNull(),
    parameters: jsonb('parameters').notNull(),
    /** Milliseconds that were granted: what a refresh extends by. */
    ttl: bigint('ttl', { mode: 'number' }).notNull(),
    handles: jsonb('handles').notNull().default([]),
    /** Keyed digests of the secrets that were handed out, newest last. */
    digests: jsonb('digests').notNull().default([]),
    reservedAt: moment('reserved_at').notNull().defaultNow(),
    issuedAt: moment('issued_at'),
    expiresAt: moment('expires_at').notNull(),
    cause: text('cause'),
    reason: text('reason'),
    endedBy: text('ended_by'),
    revokedIn: text('revoked_in'),
    /** When its end was decided: what `revoking` and `lapsing` have been waiting since, and from where time to dead is measured. */
    closingAt: moment('closing_at'),
    endedAt: moment('ended_at'),
    evidence: jsonb('evidence'),
    error: text('error'),
    stuckSince: moment('stuck_since'),
    attempts: integer('attempts').notNull().default(0),
    /** When to look at it next; moved into the future by whoever claims it. Null once ended. */
    dueAt: moment('due_at'),
  },
  (table) => [
    check('leases_state', oneOf('state', leaseStates)),
    check('leases_ended', sql`(due_at is null) = (state in ('revoked', 'expired', 'failed'))`),
    check('leases_evidence', sql`state <> 'revoked' or evidence is not null`),
    check('leases_expiry_never_revoked', sql`revocation <> 'expiry' or state <> 'revoked'`),
    index('leases_due')
      .on(table.provider, table.dueAt)
      .where(sql`due_at is not null`),
    // A condition that nobody has who looks for one lease by its id or task, and wants it active. Else Postgres takes this index for that too as long as
    // it believes that few are alive, and then walks all of them to find one.
    index('leases_expiring')
      .on(table.expiresAt)
      .where(sql`ended_at is null`),
    index('leases_by_task').on(table.taskId),
    index('leases_by_agent').on(table.agent, table.id),
    index('leases_by_owner').on(table.owner, table.id),
    index('leases_by_grant').on(table.grant, table.id),
    index('leases_by_provider').on(table.provider, table.id),
    // What is alive is found by `leases_due` and `leases_expiring`, and would only cost here.
    index('leases_by_state')
      .on(table.state, table.id)
      .where(sql`state in ('revoked', 'expired', 'failed')`),
    // Few in a ledger that is as it should be, and an index of them alone costs the others nothing. It is read by id, and knows which rows have a state.
    index('leases_standing')
      .on(table.id, table.state)
      .where(sql`standing`),
    index('leases_by_revocation')
      .on(table.revokedIn, table.state)
      .where(sql`revoked_in is not null`),
    // As `tasks_of_long_life`.
    index('leases_of_long_life')
      .using('gist', sql`tstzrange(reserved_at, ended_at)`)
      .where(sql`ended_at - reserved_at > interval '15 minutes'`),
    // Few, and by how much each was late stands beside it: none is looked up that was not late enough.
    index('leases_ended_late')
      .on(table.id, sql`(ended_at - closing_at)`)
      .where(sql`ended_at - closing_at > interval '1 second'`),
    index('leases_unfinished')
      .on(table.closingAt)
      .where(sql`state in ('revoking', 'lapsing')`),
  ],
)

/** Every decision, denials too, with all that is needed to ask again. */
export const decisions = pgTable(
  'decisions',
  {
    id: text('id').primaryKey(),
    taskId: text('task_id').notNull(),
    agent: text('agent').notNull(),
    kind: text('kind').notNull(),
    action: text('action').notNull(),
    outcome: text('outcome', { enum: ['permit', 'deny'] }).notNull(),
    policies: jsonb('policies').notNull(),
    policyDigest: text('policy_digest').notNull(),
    obligations: jsonb('obligations').notNull(),
    answers: jsonb('answers').notNull(),
    decidedAt: moment('decided_at').notNull().defaultNow(),
  },
  (table) => [
    index('decisions_by_task').on(table.taskId),
    // Only of those that said no: what is permitted, which an agent waits for, costs nothing more.
    index('decisions_denied')
      .on(table.id)
      .where(sql`outcome = 'deny'`),
    index('decisions_denied_by_agent')
      .on(table.agent, table.id)
      .where(sql`outcome = 'deny'`),
    index('decisions_denied_by_policy')
      .using('gin', sql`policies jsonb_path_ops`)
      .where(sql`outcome = 'deny'`),
  ],
)

/** The history: append-only by trigger and by grant. Bodies are JSON without secrets. */
export const entries = pgTable(
  'entries',
  {
    id: text('id')
      .primaryKey()
      .default(sql`entry_id()`),
    at: moment('at').notNull().defaultNow(),
    xid: xid8('xid')
      .notNull()
      .default(sql`pg_current_xact_id()`),
    kind: text('kind').notNull(),
    agent: text('agent'),
    taskId: text('task_id'),
    leaseId: text('lease_id'),
    decisionId: text('decision_id'),
    body: jsonb('body').notNull(),
  },
  (table) => [
    index('entries_by_task').on(table.taskId, table.id),
    // Most entries are of no lease.
    index('entries_by_lease')
      .on(table.leaseId, table.id)
      .where(sql`lease_id is not null`),
    index('entries_by_agent').on(table.agent, table.id),
    index('entries_by_kind').on(table.kind, table.id),
    // The order of the log: what is next is read behind the last entry that has its place.
    index('entries_by_xid').on(table.xid, table.id),
    // The beginning, for an index holds 2,704 bytes, and a subject may be longer.
    index('entries_by_operator')
      .on(sql`"left"(body->>'by', 256)`, table.id)
      .where(sql`body->>'by' like 'operator:%'`),
  ],
)

/**
 * The logs that the history was signed into, one after the other: each begins where the one before it was closed, under a name and a key of its own.
 * A log whose successor is here is closed, and its last checkpoint is its final one. Append-only by trigger and by grant, as are the three that follow.
 */
export const logs = pgTable(
  'logs',
  {
    number: integer('number').primaryKey(),
    origin: text('origin').notNull().unique(),
    /** The verifier key. */
    key: text('key').notNull(),
    /** The place of its first entry among all that were signed, which is leaf 0 of its tree. */
    first: bigint('first', { mode: 'number' }).notNull().unique(),
    at: moment('at').notNull().defaultNow(),
  },
  () => [check('logs_first', sql`number >= 1 and (number = 1) = (first = 0)`)],
)

/** The place of each entry among all that were signed, counted through all logs, and its leaf hash: level 0 of the tree. */
export const leaves = pgTable('leaves', {
  index: bigint('index', { mode: 'number' }).primaryKey(),
  entryId: text('entry_id').notNull().unique(),
  hash: bytes('hash').notNull(),
})

/**
 * The roots of whole subtrees of 256^level leaves: the tree above its leaves, as tiles need it. A tile is 256 neighbours of one level, or those of them
 * that are there, so no tile is kept for itself: each batch would leave a copy of the unfinished ones behind.
 */
export const subtrees = pgTable(
  'subtrees',
  {
    /** Whose tree. A broker from before there were several knows one alone. */
    log: integer('log').notNull().default(1),
    level: integer('level').notNull(),
    index: bigint('index', { mode: 'number' }).notNull(),
    hash: bytes('hash').notNull(),
  },
  (table) => [primaryKey({ columns: [table.log, table.level, table.index] }), check('subtrees_level', sql`level >= 1`)],
)

/**
 * Every tree head that was signed. Each names the one that it goes on from, the first of a log the final one of the log before it, and no two may name
 * the same: neither can a log fork, nor one that was closed be added to. Sizes are counted through all logs.
 */
export const checkpoints = pgTable(
  'checkpoints',
  {
    size: bigint('size', { mode: 'number' }).primaryKey(),
    previous: bigint('previous', { mode: 'number' }).notNull().unique(),
    root: bytes('root').notNull(),
    note: text('note').notNull(),
    at: moment('at').notNull().defaultNow(),
  },
  () => [check('checkpoints_grow', sql`previous >= 0 and size > previous`)],
)

/** Every policy set that was ever active, by its digest, so that any decision can be replayed. */
export const policySets = pgTable('policy_sets', {
  digest: text('digest').primaryKey(),
  document: jsonb('document').notNull(),
  activatedAt: moment('activated_at').notNull().defaultNow(),
})

/** Declarations that carried an Idempotency-Key, by SHA-256 over caller and key. */
export const idempotencyKeys = pgTable(
  'idempotency_keys',
  {
    key: text('key').primaryKey(),
    requestDigest: text('request_digest').notNull(),
    taskId: text('task_id').notNull(),
    /** Which request took it last. Only that one may let it go. */
    holder: text('holder').notNull().default(''),
    /** Until then another request with this key is told to come back; cleared with the answer. A crash leaves it to run out. */
    busyUntil: moment('busy_until'),
    expiresAt: moment('expires_at').notNull(),
  },
  (table) => [index('idempotency_keys_by_expiry').on(table.expiresAt)],
)

/** Tokens of `single-use` issuers that were presented, until they expire by themselves. */
export const spentTokens = pgTable('spent_tokens', { key: text('key').primaryKey(), expiresAt: moment('expires_at').notNull() }, (table) => [
  index('spent_tokens_by_expiry').on(table.expiresAt),
])

/** How many leases of an agent are alive: one row an agent, so that the limit is checked in the announcing commit, exactly, by any broker. */
export const agents = pgTable('agents', { name: text('name').primaryKey(), liveLeases: integer('live_leases').notNull().default(0) }, () => [
  check('agents_live_leases', sql`live_leases >= 0`),
])

/**
 * Names of sessions at AWS, taken before STS hears of them. What anybody holds of one ends when its lease does, so that moment stands there, where a
 * refresh moves it.
 */
export const roleSessions = pgTable(
  'role_sessions',
  {
    provider: text('provider').notNull(),
    role: text('role').notNull(),
    name: text('name').notNull(),
    leaseId: text('lease_id').notNull(),
    reservedAt: moment('reserved_at').notNull().defaultNow(),
    /** Not looked at before this when rows are forgotten: the end of its lease as it was announced, and what AWS may be behind. */
    forgetAt: moment('forget_at').notNull(),
    deniedAt: moment('denied_at'),
    /** The first generation of its role's kill list that denies it. */
    generation: integer('generation'),
    writtenAt: moment('written_at'),
    confirmedAt: moment('confirmed_at'),
  },
  (table) => [
    primaryKey({ columns: [table.provider, table.role, table.name] }),
    check('role_sessions_denied', sql`denied_at is not null or (generation is null and confirmed_at is null)`),
    check('role_sessions_confirmed', sql`generation is not null or (written_at is null and confirmed_at is null)`),
    index('role_sessions_by_lease').on(table.leaseId),
    index('role_sessions_forgotten').on(table.forgetAt),
    // How much a role has to deny, counted at each mint.
    index('role_sessions_denied')
      .on(table.provider, table.role)
      .where(sql`denied_at is not null`),
    // What still has to be denied: looked for each second.
    index('role_sessions_unconfirmed')
      .on(table.provider, table.role)
      .where(sql`denied_at is not null and confirmed_at is null`),
  ],
)

/** The kill list of each role: what was last meant to be written, was written, was seen to be in force, and who may write it. */
export const killLists = pgTable(
  'kill_lists',
  {
    provider: text('provider').notNull(),
    role: text('role').notNull(),
    /** Number of the cohort that names are given out in, below 36^3: three characters of base36 in a name. */
    cohort: integer('cohort').notNull(),
    cohortSince: moment('cohort_since').notNull().defaultNow(),
    /** What the names of its canaries have that those of another store's list cannot have. */
    salt: text('salt')
      .notNull()
      .default(sql`substr(md5(gen_random_uuid()::text), 1, 8)`),
    generation: integer('generation').notNull().default(0),
    digest: text('digest'),
    intendedAt: moment('intended_at'),
    writtenGeneration: integer('written_generation').notNull().default(0),
    writtenAt: moment('written_at'),
    confirmedGeneration: integer('confirmed_generation').notNull().default(0),
    confirmedAt: moment('confirmed_at'),
    killed: jsonb('killed').notNull().default([]),
    cutoff: moment('cutoff'),
    rung: integer('rung').notNull().default(1),
    heldBy: text('held_by'),
    heldUntil: moment('held_until'),
    /** When what was written is to be compared with what AWS has. Null before anything was. */
    checkAt: moment('check_at'),
    /** Since when a call of somebody else may still arrive at AWS and write over it. */
    disturbedAt: moment('disturbed_at'),
  },
  (table) => [
    primaryKey({ columns: [table.provider, table.role] }),
    check('kill_lists_cohort', sql`cohort >= 0 and cohort < 46656`),
    check('kill_lists_generations', sql`written_generation <= generation and confirmed_generation <= generation`),
  ],
)

/** Which tasks and leases are meant: all that agree with each column that is not null. */
const selected = () => ({
  agent: text('agent'),
  owner: text('owner'),
  issuer: text('issuer'),
  kind: text('kind'),
  grant: text('grant_name'),
  provider: text('provider'),
})

/** Revocations of many tasks or leases at once, each of them also the job that brings it about. */
export const revocations = pgTable(
  'revocations',
  {
    id: text('id').primaryKey(),
    ...selected(),
    reason: text('reason').notNull(),
    by: text('by').notNull(),
    startedAt: moment('started_at').notNull().defaultNow(),
    /** What was committed before it is seen once nothing older is under way. */
    xid: xid8('xid')
      .notNull()
      .default(sql`pg_current_xact_id()`),
    /** When nothing was left that it had to begin to end. */
    begunAt: moment('begun_at'),
    /** When the last of it was dead. */
    endedAt: moment('ended_at'),
  },
  (table) => [
    index('revocations_unfinished')
      .on(table.id)
      .where(sql`ended_at is null`),
  ],
)

/** What must not be issued any more. Whatever issues reads this table under a lock that keeps a stop out (see the trigger `stops_shut_the_door`). */
export const stops = pgTable(
  'stops',
  {
    id: text('id').primaryKey(),
    ...selected(),
    reason: text('reason').notNull(),
    by: text('by').notNull(),
    beganAt: moment('began_at').notNull().defaultNow(),
    until: moment('until').notNull(),
    liftedAt: moment('lifted_at'),
    liftedBy: text('lifted_by'),
    liftReason: text('lift_reason'),
  },
  (table) => [
    index('stops_standing')
      .on(table.until)
      .where(sql`lifted_at is null`),
  ],
)
