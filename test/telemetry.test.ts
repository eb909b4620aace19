import { randomBytes } from 'node:crypto'
import { Writable } from 'node:stream'
import fc from 'fast-check'
import { SignJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { Secret } from '../src/base/secret.ts'
import { newId } from '../src/base/ids.ts'
import { beginAtZero, createTelemetry, scrub } from '../src/telemetry.ts'

function written(level = 'debug') {
  const chunks: string[] = []
  const destination = new Writable({ write: (chunk: Buffer, _, done) => (chunks.push(chunk.toString()), done()) })
  return { telemetry: createTelemetry({ level, destination }), text: () => chunks.join('') }
}

const jwt = await new SignJWT({ sub: 'agent:invoice-bot', exp: 4_000_000_000 }).setProtectedHeader({ alg: 'HS256', kid: 'a' }).sign(randomBytes(32))

describe('a log line', () => {
  test('is one JSON object with level, ISO time, fields and message', () => {
    const { telemetry, text } = written()

    telemetry.log.warn({ lease: 'lease_1', attempts: 3 }, 'a lease could not be ended yet')

    const line = JSON.parse(text()) as Record<string, unknown>
    expect(line).toEqual({ level: 'warn', time: expect.any(String), lease: 'lease_1', attempts: 3, msg: 'a lease could not be ended yet' })
    expect(line['time']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(text()).toMatch(/^[^\n]+\n$/)
  })

  test('is written from the configured level on', () => {
    const { telemetry, text } = written('warn')
    telemetry.log.debug({}, 'one')
    telemetry.log.info({}, 'two')
    telemetry.log.warn({}, 'three')
    telemetry.log.error({}, 'four')
    expect(text().match(/"msg":"\w+"/g)).toEqual(['"msg":"three"', '"msg":"four"'])

    const silent = written('silent')
    silent.telemetry.log.error({}, 'five')
    expect(silent.text()).toBe('')
  })

  test('shows a secret as a box', () => {
    const { telemetry, text } = written()
    telemetry.log.info({ deep: { er: { still: [new Secret('hunter2')] } } }, 'never do this')
    expect(text()).toContain('[secret]')
    expect(text()).not.toContain('hunter2')
  })
})

describe('the last net under the log', () => {
  const jwe = 'eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4.vpEfTS_efNS77B5r'
  const withBits = (bits: Uint8Array) => `mft_01m85ze3r2e488kmntd4bd6v2t_${Buffer.from(bits).toString('base64url')}`
  const taskToken = withBits(randomBytes(32))

  test('catches every token, wherever in a line it stands', () => {
    const around = fc.oneof(fc.string(), fc.constantFrom(' ', '"', '\\', '.', '=', '\n', 'Authorization: ', 'token=', 'Bearer ', 'bearer\t', 'x'))
    const taskTokens = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(withBits)
    const tokens = fc.oneof(taskTokens, fc.constantFrom(jwt, jwe))

    fc.assert(
      fc.property(tokens, around, around, fc.constantFrom('message', 'value', 'key', 'deep'), (token, before, after, where) => {
        const { telemetry, text } = written()
        const said = before + token + after
        if (where === 'message') telemetry.log.info({}, said)
        else if (where === 'value') telemetry.log.info({ said }, 'x')
        else if (where === 'key') telemetry.log.info({ [`k${said}`]: 1 }, 'x')
        else telemetry.log.info({ a: { b: { c: { d: { e: [{ f: said }] } } } } }, 'x')

        expect(text()).not.toContain(token)
        // Nor a part from which it could be used: the signature, or half of the random bits.
        expect(text()).not.toContain(token.slice(-20))
        expect(() => JSON.parse(text()) as unknown).not.toThrow()
      }),
      { numRuns: 200 },
    )
  })

  test('catches whatever is presented as a bearer token', () => {
    for (const header of ['Bearer s.opaque/+token==', 'bearer  s.opaque/+token==', 'BEARER\ts.opaque/+token==']) {
      const { telemetry, text } = written()
      telemetry.log.info({ header }, header)
      expect(text()).not.toContain('opaque')
      expect(text().match(/\[scrubbed\]/g)).toHaveLength(2)
    }
  })

  test('catches tokens of Vault and OpenBao', () => {
    for (const token of ['hvs.CAESIJ4Xb0l5m3Cq0v8m3Jm0e6y2l', 's.JcZ0NwNMQ6q9y3sTgP0Qw1xb', 'hvb.AAAAAQJ4Xb0l5m3Cq0v8m3Jm0e6y2l']) {
      expect(scrub(`{"error":"refused ${token}"}`)).toBe('{"error":"refused [scrubbed]"}')
    }
  })

  test('leaves everything else as it is', () => {
    const ids = Array.from({ length: 2_000 }, () => newId('lease')).join(' ')
    const lines = [
      `{"lease":"lease_01jd0eyjm0e0e8v2eyjh6q8t2k","route":"/tasks/:id","ms":1.5}`,
      '{"url":"https://broker.example.com/","digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}',
      '{"credential":"bearer_token"}',
      ids,
    ]
    for (const line of lines) expect(scrub(line)).toBe(line)
    expect(scrub(`{"a":"${taskToken}","b":1}`)).toBe('{"a":"[scrubbed]","b":1}')
    expect(scrub(`{"a":"Bearer ${jwt}","b":1}`)).toBe('{"a":"Bearer [scrubbed]","b":1}')
  })

  test('takes time that grows with the line and no faster', () => {
    const slow = [
      'eyJ'.repeat(500_000),
      'mft_'.repeat(400_000),
      'bearer '.repeat(200_000),
      `bearer${' '.repeat(1_500_000)}`,
      'eyJ.'.repeat(400_000),
      's.'.repeat(800_000),
      'hvs.a'.repeat(300_000),
    ]
    const started = process.cpuUsage()
    for (const line of slow) scrub(line)
    // Of the processor, in microseconds. Quadratic, each of these would take minutes.
    expect(process.cpuUsage(started).user).toBeLessThan(10_000_000)
  })
})

describe('metrics', () => {
  test('on which an alarm is set begin at 0, so that their first time is an increase', async () => {
    const { metrics } = written().telemetry
    metrics.policyReloads.inc({ outcome: 'refused' })
    beginAtZero(metrics, {
      issuers: ['corp'],
      providers: [
        { name: 'aws', events: ['kill_list_drift'] },
        { name: 'tokens', events: [] },
      ],
      anchors: 2,
    })
    const lines = (await metrics.registry.metrics()).split('\n').filter((line) => /^mayfly_\w+_total\{/.test(line))
    expect(lines.filter((line) => !line.endsWith(' 0'))).toEqual(['mayfly_policy_reloads_total{outcome="refused"} 1'])
    for (const series of [
      'policy_reloads_total{outcome="activated"}',
      'policy_reloads_total{outcome="waiting"}',
      'rate_limited_total{limit="in_flight_ends"}',
      'issuer_key_fetches_total{issuer="corp",outcome="failed"}',
      'tokens_refused_total{issuer="corp",reason="keys_unavailable"}',
      'tokens_refused_total{issuer="corp",reason="replayed"}',
      'leases_issued_total{provider="tokens"}',
      'provider_events_total{provider="aws",event="kill_list_drift"}',
      'anchor_writes_total{anchor="1",outcome="failed"}',
    ])
      expect(lines).toContain(`mayfly_${series} 0`)
  })

  test('keep their names, kinds and labels: dashboards and alarms rest on them', async () => {
    const { metrics } = written().telemetry
    const described = await metrics.registry.getMetricsAsJSON()
    const ours = metrics.registry
      .getMetricsAsArray()
      .filter(({ name }) => name.startsWith('mayfly_'))
      .map((metric) => {
        const { name } = metric
        const { type } = described.find((one) => one.name === name)!
        return `${type} ${name} ${(metric as unknown as { labelNames: string[] }).labelNames.join(',')}`.trim()
      })
    expect(ours.toSorted()).toEqual([
      'counter mayfly_anchor_writes_total anchor,outcome',
      'counter mayfly_decisions_total action,outcome',
      'counter mayfly_issuer_key_fetches_total issuer,outcome',
      'counter mayfly_leases_ended_total provider,cause,state',
      'counter mayfly_leases_issued_total provider',
      'counter mayfly_policy_reloads_total outcome',
      'counter mayfly_provider_events_total provider,event',
      'counter mayfly_rate_limited_total limit',
      'counter mayfly_tokens_refused_total issuer,reason',
      'gauge mayfly_clock_apart_seconds',
      'gauge mayfly_leases state',
      'gauge mayfly_log_key_up',
      'gauge mayfly_log_lag_entries',
      'gauge mayfly_log_lag_seconds',
      'gauge mayfly_log_refused',
      'gauge mayfly_log_size',
      'gauge mayfly_log_strays',
      'gauge mayfly_oldest_unfinished_revocation_seconds',
      'gauge mayfly_provider_up provider',
      'gauge mayfly_standing_leases',
      'gauge mayfly_store_up',
      'gauge mayfly_stuck_leases',
      'gauge mayfly_tasks state',
      'histogram mayfly_provider_call_seconds provider,call,outcome',
      'histogram mayfly_provider_request_seconds provider,request,outcome',
      'histogram mayfly_request_seconds method,route,status',
      'histogram mayfly_time_to_dead_seconds provider,cause',
    ])
  })

  test('tell a token that died within 5 ms from one that took an hour', async () => {
    const { metrics } = written().telemetry
    metrics.timeToDead.observe({ provider: 'tokens', cause: 'completed' }, 0.004)
    metrics.timeToDead.observe({ provider: 'tokens', cause: 'completed' }, 3_599)
    const text = await metrics.registry.metrics()
    expect(text).toContain('mayfly_time_to_dead_seconds_bucket{le="0.005",provider="tokens",cause="completed"} 1')
    expect(text).toContain('mayfly_time_to_dead_seconds_bucket{le="900",provider="tokens",cause="completed"} 1')
    expect(text).toContain('mayfly_time_to_dead_seconds_bucket{le="3600",provider="tokens",cause="completed"} 2')
  })

  test('of two brokers in one process are apart, and each has those of the process', async () => {
    const [one, other] = [written().telemetry.metrics, written().telemetry.metrics]
    one.leasesIssued.inc({ provider: 'tokens' })
    expect(await one.registry.metrics()).toContain('mayfly_leases_issued_total{provider="tokens"} 1')
    expect(await other.registry.metrics()).not.toContain('provider="tokens"')
    expect(await other.registry.metrics()).toContain('process_resident_memory_bytes')
  })
})
