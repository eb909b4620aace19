import { pino } from 'pino'
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

/** Log lines: JSON, one each, with level, time and message. Fields come first, so that a message is never built from parts. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** What is counted and measured. Every label has a bounded set of values: names from the configuration, states, codes; never an id or a path. */
export interface Metrics {
  readonly registry: Registry
  readonly requests: Histogram<'method' | 'route' | 'status'>
  readonly tokensRefused: Counter<'issuer' | 'reason'>
  readonly decisions: Counter<'action' | 'outcome'>
  readonly leasesIssued: Counter<'provider'>
  readonly leasesEnded: Counter<'provider' | 'cause' | 'state'>
  readonly timeToDead: Histogram<'provider' | 'cause'>
  readonly providerCalls: Histogram<'provider' | 'call' | 'outcome'>
  readonly providerRequests: Histogram<'provider' | 'request' | 'outcome'>
  readonly providerEvents: Counter<'provider' | 'event'>
  readonly leases: Gauge<'state'>
  readonly tasks: Gauge<'state'>
  readonly stuckLeases: Gauge
  readonly standingLeases: Gauge
  readonly oldestUnfinishedRevocation: Gauge
  readonly storeUp: Gauge
  readonly clockApart: Gauge
  readonly logSize: Gauge
  readonly logLagEntries: Gauge
  readonly logLagSeconds: Gauge
  readonly logStrays: Gauge
  readonly logRefused: Gauge
  readonly logKeyUp: Gauge
  readonly anchors: Counter<'anchor' | 'outcome'>
  readonly providerUp: Gauge<'provider'>
  readonly rateLimited: Counter<'limit'>
  readonly policyReloads: Counter<'outcome'>
  readonly issuerKeys: Counter<'issuer' | 'outcome'>
}

export interface Telemetry {
  readonly log: Log
  readonly metrics: Metrics
}

export interface TelemetryOptions {
  /** `debug`, `info`, `warn`, `error`, or `silent`, which writes nothing. */
  readonly level: string
  /** Standard error where absent: standard output belongs to what a command prints. */
  readonly destination?: NodeJS.WritableStream
}

/** Log and metrics of one broker. Nothing is global: two brokers in one process, as in tests, do not see each other's numbers. */
export function createTelemetry({ level, destination = process.stderr }: TelemetryOptions): Telemetry {
  const log = pino(
    // Process id and host are what a collector adds by itself, and better.
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    { write: (line: string) => void destination.write(scrub(line)) },
  )
  return { log, metrics: createMetrics() }
}

/** Names from the configuration, with which series are labelled. */
export interface Named {
  readonly issuers: readonly string[]
  /** With the events that an alarm waits for. */
  readonly providers: readonly { readonly name: string; readonly events: readonly string[] }[]
  /** How many there are; each is named by its place. */
  readonly anchors: number
}

/**
 * Begins at 0 what an alarm is set on at its first time. Prometheus sees no increase in a series that appears with 1, so the first policy set that is
 * refused, or the first kill list that somebody else wrote, would go unnoticed.
 */
export function beginAtZero(
  { policyReloads, rateLimited, issuerKeys, tokensRefused, leasesIssued, providerEvents, anchors: kept }: Metrics,
  named: Named,
): void {
  for (const outcome of ['activated', 'waiting', 'refused']) policyReloads.inc({ outcome }, 0)
  for (const limit of [
    'issue',
    'introspect',
    'replay',
    'strangers',
    'in_flight_work',
    'in_flight_introspection',
    'in_flight_ends',
    'in_flight_operators',
    'in_flight_probes',
    'live_leases',
  ])
    rateLimited.inc({ limit }, 0)
  for (const issuer of named.issuers) {
    for (const outcome of ['changed', 'unchanged', 'failed']) issuerKeys.inc({ issuer, outcome }, 0)
    for (const reason of ['keys_unavailable', 'replayed']) tokensRefused.inc({ issuer, reason }, 0)
  }
  for (const { name: provider, events } of named.providers) {
    leasesIssued.inc({ provider }, 0)
    for (const event of events) providerEvents.inc({ provider, event }, 0)
  }
  for (let anchor = 0; anchor < named.anchors; anchor++) for (const outcome of ['kept', 'failed']) kept.inc({ anchor: String(anchor), outcome }, 0)
}

/**
 * Whatever looks like a credential, struck out of a finished line. The last net, not the rule: secrets live in `Secret`, which prints itself
 * as `[secret]`, and pino's own redaction works by path, so it sees neither messages nor what stands five levels deep.
 *
 * Known are task tokens, JWTs, tokens of Vault and whatever stands behind `Bearer`. Each alternative takes its whole run of characters at once, so that a line
 * made to be slow is not: no character is looked at twice. Case counts, because the ids of tasks and leases are lower case and may hold `eyj`.
 */
export function scrub(line: string): string {
  return line.replace(
    /mft_[\w-]*|\b(?:hv[sbr]|[sb])\.[\w-]{20,}|eyJ[\w-]+(?:\.[\w-]*)*|((?:[Bb]earer|BEARER)(?:\s|\\[tnr])+)[\w.~+/=-]+/g,
    (_, scheme?: string) => `${scheme ?? ''}[scrubbed]`,
  )
}

/** Seconds: from 1 ms, which is a probe, to 30 s, which is the longest `Prefer: wait`. */
const ofRequests = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Seconds: from 5 ms, where the broker itself answers for a token, to an hour, after which most credentials have ended by themselves. */
const ofTimeToDead = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600]

function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) => new Counter({ name, help, labelNames, registers: [registry] })
  const gauge = <L extends string>(name: string, help: string, ...labelNames: L[]) => new Gauge({ name, help, labelNames, registers: [registry] })
  const histogram = <L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) =>
    new Histogram({ name, help, buckets, labelNames, registers: [registry] })

  return {
    registry,
    requests: histogram('mayfly_request_seconds', 'Time to answer a request', ofRequests, 'method', 'route', 'status'),
    tokensRefused: counter('mayfly_tokens_refused_total', 'Workload tokens that were not accepted', 'issuer', 'reason'),
    decisions: counter('mayfly_decisions_total', 'Decisions of the policy', 'action', 'outcome'),
    leasesIssued: counter('mayfly_leases_issued_total', 'Leases whose credential was handed out', 'provider'),
    leasesEnded: counter('mayfly_leases_ended_total', 'Leases that reached their last state', 'provider', 'cause', 'state'),
    timeToDead: histogram(
      'mayfly_time_to_dead_seconds',
      'From the cause to the evidence that a credential is dead',
      ofTimeToDead,
      'provider',
      'cause',
    ),
    providerCalls: histogram('mayfly_provider_call_seconds', 'Time of one call to a provider', ofRequests, 'provider', 'call', 'outcome'),
    providerRequests: histogram(
      'mayfly_provider_request_seconds',
      'Time of one request of a provider that makes several for a call',
      ofRequests,
      'provider',
      'request',
      'outcome',
    ),
    providerEvents: counter('mayfly_provider_events_total', 'What providers had to tell operators', 'provider', 'event'),
    leases: gauge('mayfly_leases', 'Leases that have not ended', 'state'),
    tasks: gauge('mayfly_tasks', 'Tasks that have not ended', 'state'),
    stuckLeases: gauge('mayfly_stuck_leases', 'Leases whose revocation has failed for longer than limits.stuck_after'),
    standingLeases: gauge('mayfly_standing_leases', 'Leases that have not ended, of secrets that live on when they do'),
    oldestUnfinishedRevocation: gauge('mayfly_oldest_unfinished_revocation_seconds', 'Age of the oldest revocation without evidence'),
    storeUp: gauge('mayfly_store_up', 'Whether the store can be read and written'),
    clockApart: gauge('mayfly_clock_apart_seconds', "How far the store's clock is ahead of this broker's"),
    logSize: gauge('mayfly_log_size', 'Entries that have their place in the signed log'),
    logLagEntries: gauge('mayfly_log_lag_entries', 'Entries that had no place in the log yet when it was last looked at'),
    logLagSeconds: gauge('mayfly_log_lag_seconds', 'Age of the oldest of them'),
    logStrays: gauge(
      'mayfly_log_strays',
      'Entries that were written where the log had been already, and never get a place, since this broker has started',
    ),
    logRefused: gauge('mayfly_log_refused', 'Whether the log is not signed any further, because it is not as it was signed'),
    logKeyUp: gauge('mayfly_log_key_up', 'Whether the key that signs the log answered when it was last asked'),
    anchors: counter(
      'mayfly_anchor_writes_total',
      'Tries to write a checkpoint to an anchor, by its place in the configuration',
      'anchor',
      'outcome',
    ),
    providerUp: gauge('mayfly_provider_up', 'Whether the last calls to a provider were answered', 'provider'),
    rateLimited: counter('mayfly_rate_limited_total', 'Requests turned away by a limit', 'limit'),
    policyReloads: counter('mayfly_policy_reloads_total', 'Reloads of catalogue and policies', 'outcome'),
    issuerKeys: counter('mayfly_issuer_key_fetches_total', 'Fetches of issuer keys', 'issuer', 'outcome'),
  }
}
