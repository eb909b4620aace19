import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ConfigurationError } from '../../src/base/errors.ts'
import { checkCases } from '../../src/policy/cases.ts'
import { expectEachPlaceNamed } from '../support/wrong-values.ts'
import { catalogueOf, faultsOf, folderWith, setOf } from './given.ts'

const catalogue = `agents:
  bot: { issuer: local, match: { sub: [one, other] }, owner: o@example.com, tags: [env] }
  twin: { issuer: local, match: { env: prod }, owner: o@example.com }
kinds:
  sync: { owner: o@example.com, max_duration: 30m, grants: [plain] }
grants:
  plain: { provider: tokens, audience: https://a.example.com, scope: s, max_ttl: 10m }
`
const policies = [
  '@id("by-day") @max_ttl("2m") permit(principal, action == Action::"issue", resource) when { context.now.toTime() < duration("20h") };',
  '@id("not-in-test") forbid(principal, action, resource) when { principal.hasTag("env") && principal.getTag("env") == "test" };',
]

async function check(cases: string) {
  const folder = await folderWith({ 'cases.yaml': cases })
  return checkCases(await catalogueOf(catalogue), await setOf(...policies), join(folder, 'cases.yaml'))
}

describe('a case', () => {
  test('is met when outcome, policies and max_ttl are as expected', async () => {
    const results = await check(`cases:
  - { name: day, agent: bot, kind: sync, grants: [{ name: plain }], expect: { outcome: permit, policies: [by-day], max_ttl: 2m } }
  - { name: night, agent: bot, kind: sync, grants: [{ name: plain }], at: "2026-11-24T22:00:00Z", expect: { outcome: deny, policies: [] } }
  - { name: test, agent: bot, kind: sync, grants: [{ name: plain }], attributes: { env: test }, expect: { outcome: deny, policies: [not-in-test] } }
  - { name: renewal, agent: bot, kind: sync, action: renew, grants: [{ name: plain }], expect: deny }
  - { name: too long, agent: bot, kind: sync, duration: 31m, grants: [{ name: plain, ttl: 11m }], expect: refused }
  - { name: no grants, agent: bot, kind: sync, expect: deny }
`)
    expect(results.map(({ name, ok, detail }) => ({ name, ok, detail }))).toEqual(
      ['day', 'night', 'test', 'renewal', 'too long', 'no grants'].map((name) => ({ name, ok: true, detail: '' })),
    )
  })

  test('says where it stands and what differs when it is not', async () => {
    const results = await check(`cases:
  - { name: a, agent: bot, kind: sync, grants: [{ name: plain }], expect: { outcome: deny, policies: [], max_ttl: 1m } }
  - { name: b, agent: bot, kind: sync, grants: [{ name: plain, ttl: 11m }], expect: permit }
`)
    expect(results.map(({ ok, detail, place }) => ({ ok, detail, place: place.replace(/^.*\//, '') }))).toEqual([
      {
        ok: false,
        place: 'cases.yaml:2',
        detail: 'expected deny, got permit; expected to be determined by no policy, was by by-day; expected max_ttl 1m, got 2m',
      },
      { ok: false, place: 'cases.yaml:3', detail: 'expected permit, got refused (invalid_request, /grants/0/ttl must be at most 10m)' },
    ])
  })
})

test('a folder without a file of cases is refused, with what to write there', async () => {
  const file = join(await folderWith({}), 'cases.yaml')
  expect(await faultsOf(checkCases(await catalogueOf(catalogue), await setOf(...policies), file))).toEqual([
    'cases.yaml: is missing: write `cases: []` where there are none',
  ])
})

test('a file of cases is refused with every fault at once, each with its line', async () => {
  expect(
    await faultsOf(
      check(`cases:
  - name: a
    agent: nobody
    kind: sync
    expect: permit
  - { name: b, agent: bot, kind: sync, attributes: { env: prod }, expect: permit }
  - { name: c, agent: bot, kind: sync, attributes: { sub: third }, expect: permit }
`),
    ),
  ).toEqual([
    'cases.yaml:3: cases.0.agent: the catalogue has no agent "nobody"',
    'cases.yaml:6: cases.1.agent: with these attributes it matches another entry of the catalogue too, or not its own',
    'cases.yaml:7: cases.2.agent: with these attributes it matches another entry of the catalogue too, or not its own',
  ])
  expect(
    await faultsOf(
      check(`cases:
  - { name: a, agent: bot, kind: sync, expect: allow, purpose: x }
  - { name: b, agent: bot, kind: sync, at: yesterday, duration: 0s, expect: [permit] }
  - { name: c, agent: bot, kind: sync, expect: { outcome: permit, max_ttl: 2 minutes, policy: x } }
`),
    ),
  ).toEqual([
    'cases.yaml:2: cases.0.expect.outcome: must be one of permit, deny, refused',
    'cases.yaml:2: cases.0.purpose: is not a known key',
    'cases.yaml:3: cases.1.duration: must be a duration such as "90s", "15m" or "2h"',
    'cases.yaml:3: cases.1.at: must be a moment such as 2026-11-24T09:30:00Z',
    'cases.yaml:3: cases.1.expect: must be permit, deny or refused, or { outcome, policies, max_ttl }',
    'cases.yaml:4: cases.2.expect.max_ttl: must be a duration such as "90s", "15m" or "2h"',
    'cases.yaml:4: cases.2.expect.policy: is not a known key',
  ])
})

test('each field of a file of cases is named where it has a value of another sort, and what is wanted is said in the words of the house', async () => {
  const whole = {
    cases: [
      {
        name: 'a',
        agent: 'bot',
        attributes: { sub: 'one', env: 'dev' },
        trust_domain: 'example.com',
        kind: 'sync',
        action: 'issue',
        duration: '5m',
        grants: [{ name: 'plain', parameters: { customer: 'acme' }, ttl: '1m' }],
        at: '2026-11-24T09:30:00Z',
        expect: 'permit',
      },
      { name: 'b', agent: 'bot', kind: 'sync', expect: { outcome: 'permit', policies: ['by-day'], max_ttl: '2m' } },
    ],
  }
  const loaded = await catalogueOf(catalogue)
  const set = await setOf(...policies)
  const file = join(await folderWith({}), 'cases.yaml')
  async function faultsWith(cases: unknown): Promise<readonly string[]> {
    await writeFile(file, JSON.stringify(cases))
    const refused: unknown = await checkCases(loaded, set, file).catch((error: unknown) => error)
    return refused instanceof ConfigurationError ? refused.faults.map((fault) => fault.replace(/^.*?cases.yaml:\d+: /, '')) : []
  }
  expect(await faultsWith(whole)).toEqual([])
  await expectEachPlaceNamed(whole, faultsWith)
})
