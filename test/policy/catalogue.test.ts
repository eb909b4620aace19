import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { ConfigurationError } from '../../src/base/errors.ts'
import { type Catalogue, loadCatalogue } from '../../src/policy/catalogue.ts'
import { providerKinds } from '../../src/providers/kinds.ts'
import { expectEachPlaceNamed } from '../support/wrong-values.ts'
import { actor, catalogueOf, faultsOf, folderWith, issuers } from './given.ts'

const sound = `agents:
  invoice-bot: { issuer: local, match: { sub: "agent:invoice-bot" }, owner: finance@example.com, groups: [finance], tags: [sub] }
kinds:
  invoice-sync: { owner: finance@example.com, max_duration: 30m, grants: [invoices-api] }
grants:
  invoices-api: { provider: tokens, audience: https://invoices.example.com, scope: "invoices:read", max_ttl: 10m }
`

describe('a catalogue', () => {
  test('is read with its defaults, and what belongs to the provider in the shape of the provider', async () => {
    const { agents, kinds, grants } = await catalogueOf(sound)

    expect(agents.get('invoice-bot')).toEqual({
      name: 'invoice-bot',
      issuer: 'local',
      match: { sub: 'agent:invoice-bot' },
      owner: 'finance@example.com',
      groups: ['finance'],
      tags: ['sub'],
      maxLiveLeases: 100,
    })
    expect(kinds.get('invoice-sync')).toEqual({
      name: 'invoice-sync',
      owner: 'finance@example.com',
      maxDuration: 1_800_000,
      grants: ['invoices-api'],
    })
    expect(grants.get('invoices-api')).toEqual({
      name: 'invoices-api',
      provider: 'tokens',
      maxTtl: 600_000,
      sensitivity: 'normal',
      standing: false,
      parameters: {},
      settings: { audience: 'https://invoices.example.com', scope: 'invoices:read' },
    })
  })

  describe('whose grants name things of a backend', () => {
    const grants = (first: string, second: string): string => `agents: {}
kinds: {}
grants:
  one: { provider: east, role: ${first}, max_ttl: 10m }
  two: { provider: west, role: ${second}, max_ttl: 10m }
  three: { provider: east, role: ${first}, max_ttl: 5m }
`
    /** @param alone providers that have what they name to themselves */
    async function read(text: string, alone: readonly string[]): Promise<Catalogue> {
      const rule = (provider: string) => ({
        grant: z.strictObject({ role: z.string() }),
        named(settings: unknown) {
          const { role } = settings as { role: string }
          return [{ thing: `the role ${role.split('/').at(-1)}`, name: role, alone: alone.includes(provider) }]
        },
      })
      const file = join(await folderWith({ 'catalogue.yaml': text }), 'catalogue.yaml')
      return await loadCatalogue(file, new Map(['east', 'west'].map((name) => [name, rule(name)])), new Map())
    }

    test.each([[['east']], [['west']], [['east', 'west']]])('is refused where two providers name one and %s has it to itself', async (alone) => {
      expect([...(await read(grants('invoices', 'reports'), alone)).grants.keys()]).toEqual(['one', 'two', 'three'])
      expect(await faultsOf(read(grants('invoices', 'eu/invoices'), alone))).toEqual([
        'catalogue.yaml:5: grants.two.provider: names the role invoices, which one provider has to itself, and so do grants of "east"',
      ])
      expect([...(await read(grants('invoices', 'invoices'), [])).grants.keys()], 'that neither has').toHaveLength(3)
    })

    test('is refused where one provider has something to itself and calls it by two names', async () => {
      const text = grants('invoices', 'reports').replace('west, role: reports', 'east, role: eu/invoices')
      expect(await faultsOf(read(text, ['east']))).toEqual([
        'catalogue.yaml:5: grants.two: names the role invoices as "eu/invoices", which is "invoices" elsewhere: call it by one name',
      ])
      expect([...(await read(text, [])).grants.keys()]).toHaveLength(3)
    })
  })

  test('is refused with every fault at once, each with its file, line and path', async () => {
    const text = `agents:
  invoice-bot:
    issuer: unheard-of
    match: {}
    owner: finance@example.com
  Report-Bot: { issuer: nobody, match: { sub: x }, owner: y, colour: red }
  other: { issuer: nobody, match: { sub: x }, owner: y }
kinds:
  sync:
    owner: finance@example.com
    max_duration: 0m
    grants:
      - invoices-api
      - missing
      - invoices-api
grants:
  invoices-api:
    provider: tokens
    audience: not a url
    max_ttl: 10m
    path: database/creds
    parameters:
      customer: { pattern: "(a+)+" }
  elsewhere: { provider: vault, max_ttl: 10m }
  late: { provider: tokens, audience: https://a.example.com, scope: s }
`
    expect(await faultsOf(catalogueOf(text))).toEqual([
      'catalogue.yaml:4: agents.invoice-bot.match: must name at least one attribute, or it would match everybody of the issuer',
      'catalogue.yaml:6: agents.Report-Bot: must be lower-case letters, digits, ".", "_" or "-", at most 64',
      'catalogue.yaml:6: agents.Report-Bot.colour: is not a known key',
      'catalogue.yaml:7: agents.other.issuer: no issuer is configured with the name "nobody"',
      'catalogue.yaml:11: kinds.sync.max_duration: must be a duration such as "90s", "15m" or "2h"',
      'catalogue.yaml:23: grants.invoices-api.parameters.customer.pattern: can be tried in more than 100000 ways: bound what it repeats, such as {1,32}',
      'catalogue.yaml:24: grants.elsewhere.provider: no provider is configured with the name "vault"',
      'catalogue.yaml:25: grants.late.max_ttl: must be a duration such as "90s", "15m" or "2h"',
    ])
  })

  test('may bound how long a task lives in all, which is no shorter than it may be opened for', async () => {
    const living = (life: string) => sound.replace('max_duration: 30m', `max_duration: 30m, max_life: ${life}`)
    expect((await catalogueOf(living('8h'))).kinds.get('invoice-sync')).toMatchObject({ maxDuration: 1_800_000, maxLife: 28_800_000 })
    expect((await catalogueOf(living('30m'))).kinds.get('invoice-sync')).toMatchObject({ maxLife: 1_800_000 })
    expect(await faultsOf(catalogueOf(living('29m')))).toEqual([
      'catalogue.yaml:4: kinds.invoice-sync.max_life: must not be shorter than max_duration, for which a task may be opened',
    ])
  })

  test('names the faults of the provider own part, of missing and of repeated grants', async () => {
    const text = sound.replace('[invoices-api]', '[invoices-api, missing, invoices-api]').replace('scope: "invoices:read"', 'path: x')
    expect(await faultsOf(catalogueOf(text))).toEqual([
      'catalogue.yaml:4: kinds.invoice-sync.grants.1: the catalogue has no grant "missing"',
      'catalogue.yaml:4: kinds.invoice-sync.grants.2: "invoices-api" is listed twice',
      'catalogue.yaml:6: grants.invoices-api.scope: is missing',
      'catalogue.yaml:6: grants.invoices-api.path: is not a known key',
    ])
  })

  test('is refused for what no token of the issuer proves, to match by or as a tag', async () => {
    const text = sound.replace('match: {', 'match: { grops: finance,').replace('tags: [sub]', 'tags: [sub, email]')
    const fault = 'is nothing that tokens of this issuer prove; where it is of profile oidc, name it under its claims'
    expect(await faultsOf(catalogueOf(text))).toEqual([
      `catalogue.yaml:2: agents.invoice-bot.match.grops: ${fault}`,
      `catalogue.yaml:2: agents.invoice-bot.tags.1: ${fault}`,
    ])
  })

  const faulty: readonly (readonly [string, string, string])[] = [
    ['a section that is missing', sound.replace('kinds:', 'kind:'), 'catalogue.yaml:1: kinds: is missing'],
    ['a key on the top that is unknown', `${sound}extra: 1\n`, 'catalogue.yaml:7: extra: is not a known key'],
    ['a key that stands twice', `${sound}  invoices-api: {}\n`, 'catalogue.yaml:7: Map keys must be unique'],
    ['a key that is no text', `${sound}  ? [a]\n  : {}\n`, 'catalogue.yaml:7: With stringKeys, all keys must be strings'],
    ['a key that JavaScript treats specially', `${sound}  __proto__: {}\n`, 'catalogue.yaml:7: __proto__ is not a known key'],
    ['a tag that is unknown', sound.replace('30m', '!!duration 30m'), 'catalogue.yaml:4: Unresolved tag: tag:yaml.org,2002:duration'],
    ['a second document', `${sound}---\n`, 'catalogue.yaml:7: Source contains multiple documents; please use YAML.parseAllDocuments()'],
    [
      'a value to match that is no text',
      sound.replace('"agent:invoice-bot"', '7'),
      'catalogue.yaml:2: agents.invoice-bot.match.sub: must be text, or a list of texts',
    ],
    ['a list of no values to match', sound.replace('"agent:invoice-bot"', '[]'), 'catalogue.yaml:2: agents.invoice-bot.match.sub: must not be empty'],
    [
      'more aliases than a catalogue needs',
      `${sound}extra: [&a x, ${Array(101).fill('*a').join(', ')}]\n`,
      'catalogue.yaml: Excessive alias count indicates a resource exhaustion attack',
    ],
    ['an empty file', '', 'catalogue.yaml:1: must be a mapping'],
  ]
  for (const [what, text, fault] of faulty) {
    test(`is refused for ${what}`, async () => {
      expect(await faultsOf(catalogueOf(text))).toContain(fault)
    })
  }

  test('is refused when it cannot be read, is not UTF-8 or is too large', async () => {
    const folder = await folderWith({ 'large.yaml': `# ${'x'.repeat(1024 * 1024)}`, 'latin1.yaml': Buffer.from('# caf\u00e9', 'latin1') })
    const load = (name: string) => faultsOf(loadCatalogue(join(folder, name), new Map(), new Map()))
    expect(await load('none.yaml')).toEqual([expect.stringContaining('none.yaml: cannot be read: ENOENT')])
    expect(await load('latin1.yaml')).toEqual(['latin1.yaml: is not UTF-8 text'])
    expect(await load('large.yaml')).toEqual(['large.yaml: has more than 1048576 bytes'])
  })
})

describe('each field of a whole catalogue', () => {
  const own = { owner: 'o@example.com' }
  const whole = {
    agents: {
      bot: { issuer: 'local', match: { sub: 'one', env: ['prod', 'test'] }, ...own, groups: ['finance'], tags: ['env'], max_live_leases: 7 },
    },
    kinds: { sync: { ...own, max_duration: '30m', grants: ['tokens', 'backend', 'login', 'bucket'] } },
    grants: {
      tokens: { provider: 'jwt', audience: 'https://a.example.com', scope: 's', max_ttl: '10m', sensitivity: 'high', standing: false },
      backend: {
        provider: 'http',
        settings: { tier: 'gold', hours: [7, true] },
        max_ttl: '10m',
        parameters: { customer: { pattern: '[a-z]{1,9}' } },
      },
      login: {
        provider: 'vault',
        path: 'pki/issue/service',
        policy: 'p',
        engine: 'pki',
        ended_by: 'serial',
        data: { common_name: 'a' },
        max_ttl: '10m',
      },
      bucket: {
        provider: 'aws-sts',
        roles: ['invoices'],
        allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/*'], conditions: { StringEquals: { 's3:prefix': ['a'] } } }],
        outlives_revocation: [],
        max_ttl: '10m',
      },
    },
  }

  test('is named where it has a value of another sort, and what is wanted is said in the words of the house', async () => {
    const file = join(await folderWith({}), 'catalogue.yaml')
    async function faultsWith(catalogue: unknown): Promise<readonly string[]> {
      await writeFile(file, JSON.stringify(catalogue))
      const refused: unknown = await loadCatalogue(file, providerKinds, issuers).catch((error: unknown) => error)
      return refused instanceof ConfigurationError ? refused.faults.map((fault) => fault.replace(/^.*?catalogue.yaml:\d+: /, '')) : []
    }
    expect(await faultsWith(whole)).toEqual([])
    await expectEachPlaceNamed(whole, faultsWith)
  })
})

describe('the agent of an actor', () => {
  const entry = (name: string, match: string) => `  ${name}: { issuer: local, match: ${match}, owner: o@example.com }\n`
  const catalogue = (...entries: readonly string[]) => catalogueOf(`agents:\n${entries.join('')}kinds: {}\ngrants: {}\n`)

  test('is the one entry that matches', async () => {
    const { agents, ...loaded } = await catalogue(entry('a', '{ sub: one, env: [prod, test] }'), entry('b', '{ sub: two }'))
    expect(loaded.agentOf(actor({ sub: 'one', env: 'test' }))).toBe(agents.get('a'))
    expect(loaded.agentOf(actor({ sub: 'two', env: 'dev' }))).toBe(agents.get('b'))
  })

  test('is nobody when none matches, the issuer is another one, or two entries match', async () => {
    const loaded = await catalogue(entry('a', '{ sub: one }'), entry('b', '{ env: prod }'))
    expect(loaded.agentOf(actor({ sub: 'three' }))).toBeUndefined()
    expect(loaded.agentOf({ ...actor({ sub: 'one' }), issuer: 'ci' })).toBeUndefined()
    expect(loaded.agentOf(actor({ sub: 'one', env: 'prod' }))).toBeUndefined()
  })

  test('is the same however often it is asked for, and another one in another catalogue', async () => {
    const [first, second] = [await catalogue(entry('a', '{ sub: one }')), await catalogue(entry('b', '{ sub: one }'))]
    const [known, nobody] = [actor({ sub: 'one' }), actor({ sub: 'two' })]
    for (let time = 0; time < 2; time++) {
      expect(first.agentOf(known)).toBe(first.agents.get('a'))
      expect(second.agentOf(known)).toBe(second.agents.get('b'))
      expect(first.agentOf(nobody)).toBeUndefined()
    }
  })
})
