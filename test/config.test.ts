import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ConfigurationError } from '../src/base/errors.ts'
import { type Config, loadConfig, type Overrides } from '../src/config.ts'
import { childEnvironment, clientSettings, wholeEnvironment } from '../src/config/environment.ts'
import { issuerFaults } from '../src/identity/issuer.ts'
import { providerKinds } from '../src/providers/kinds.ts'
import { parseWitnessKey } from '../src/proof/cosignature.ts'
import { verifierKeyOf } from '../src/proof/note.ts'
import { canMakeCertificates, createAuthority } from './providers/certificates.ts'
import { expectEachPlaceNamed } from './support/wrong-values.ts'

const sound = `public_url: https://broker.example.com
listen: { port: 0 }
store: { embedded: ./data }
catalogue: ./catalogue.yaml
policies: ./policies
identity:
  - { name: corp, profile: oidc, issuer: https://login.example.com }
operators:
  - { issuer: corp, match: { groups: sec-ops }, roles: [operator, reviewer] }
resource_servers:
  - { issuer: corp, match: { sub: invoices }, audience: https://invoices.example.com }
providers:
  - { name: tokens, kind: jwt }
`

const publicKey = {
  kty: 'EC',
  crv: 'P-256',
  kid: 'a',
  use: 'sig',
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
  y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
}

const { text: witnessKey } = verifierKeyOf('witness.example/w1', new Uint8Array(32).fill(3), 'cosignature')
const { text: logVerifier } = verifierKeyOf('broker.example.com', new Uint8Array(32).fill(3))

interface Given {
  readonly text?: string
  readonly files?: Readonly<Record<string, string | Uint8Array>>
  readonly environment?: Readonly<Record<string, string>>
  readonly overrides?: Overrides
}

async function folderWith(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-config-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(folder, name)), { recursive: true })
    await writeFile(path.join(folder, name), text)
  }
  return folder
}

async function load({ text = sound, files = {}, environment = {}, overrides = {} }: Given): Promise<{ config: Config; folder: string }> {
  const folder = await folderWith({ 'mayfly.yaml': text, ...files })
  return { folder, config: await loadConfig(path.join(folder, 'mayfly.yaml'), providerKinds, environment, overrides) }
}

/** The faults for which it is refused, without the folder of the test. */
async function faultsOf(given: Given): Promise<readonly string[]> {
  try {
    await load(given)
  } catch (error) {
    if (error instanceof ConfigurationError) return error.faults.map((fault) => fault.replaceAll(/\/\S*?mayfly-config-\w+\/?/g, ''))
    throw error
  }
  return []
}

/** The sound one with one line more, or with another in its place. */
const changed = (from: string, to: string): string => {
  expect(sound).toContain(from)
  return sound.replace(from, to)
}

describe('a configuration', () => {
  test('is read with its defaults, absolute paths and milliseconds', async () => {
    const { config, folder } = await load({})
    expect(config).toEqual({
      file: path.join(folder, 'mayfly.yaml'),
      publicUrl: 'https://broker.example.com',
      listen: { host: '127.0.0.1', port: 0 },
      store: { embedded: path.join(folder, 'data') },
      keys: path.join(folder, 'keys'),
      catalogue: path.join(folder, 'catalogue.yaml'),
      policies: path.join(folder, 'policies'),
      identity: [expect.objectContaining({ name: 'corp', profile: 'oidc', issuer: 'https://login.example.com', keys: { discovery: true } })],
      operators: [{ issuer: 'corp', match: { groups: 'sec-ops' }, roles: ['operator', 'reviewer'] }],
      resourceServers: [{ issuer: 'corp', match: { sub: 'invoices' }, audience: 'https://invoices.example.com' }],
      providers: [{ name: 'tokens', kind: 'jwt', settings: { algorithm: 'ES256', rotate_every: 86_400_000 } }],
      anchors: [],
      limits: { leasesPerTask: 16, stuckAfter: 300_000 },
      rates: { issue: { burst: 200, perSecond: 50 }, introspect: { burst: 2_000, perSecond: 1_000 }, replay: { burst: 50, perSecond: 2 } },
      doorLimits: { inFlight: 256, time: 30_000 },
      connections: 4_096,
      log: { level: 'info' },
    })
  })

  test('says how people sign in to the console, whose secret comes from elsewhere', async () => {
    const secret = 'client_secret: "${file:./client-secret}"'
    const text = `${sound}console: { issuer: corp, client_id: mayfly, ${secret}, scopes: [groups], session: 30m }\n`
    const { config } = await load({ text, files: { 'client-secret': 'of the client\n' } })
    expect(config.console).toEqual({ issuer: 'corp', clientId: 'mayfly', clientSecret: 'of the client', scopes: ['groups'], session: 1_800_000 })
    const { config: least } = await load({ text: `${sound}console: { issuer: corp, client_id: mayfly }\n` })
    expect(least.console).toEqual({ issuer: 'corp', clientId: 'mayfly', clientSecret: undefined, scopes: [], session: 3_600_000 })
    expect((await load({})).config.console).toBeUndefined()
  })

  test.each([
    ['{ client_id: mayfly }', ['mayfly.yaml:15: console.issuer: is missing']],
    ['{ issuer: other, client_id: mayfly }', ['mayfly.yaml:15: console.issuer: is not the name of an issuer under identity']],
    ['{ issuer: ci, client_id: mayfly }', ['mayfly.yaml:15: console.issuer: must be an issuer of profile oidc: the others sign no people in']],
    [
      '{ issuer: pinned, client_id: mayfly }',
      ['mayfly.yaml:15: console.issuer: is the name of an issuer without an https address, where nobody could sign in'],
    ],
    ['{ issuer: corp, client_id: mayfly, session: 1m }', ['mayfly.yaml:15: console.session: must be a duration from "5m" to "12h"']],
    ['{ issuer: corp, client_id: mayfly, scopes: ["a b"] }', ['mayfly.yaml:15: console.scopes.0: must be a scope of OAuth 2.0, without spaces']],
    ['{ issuer: corp, client_id: mayfly, colour: red }', ['mayfly.yaml:15: console.colour: is not a known key']],
  ])('refuses console: %s', async (console, faults) => {
    const more = '  - { name: ci, profile: github-actions }\n  - { name: pinned, profile: oidc, issuer: "urn:pinned", keys: ./keys.json }\noperators:'
    const text = `${sound.replace('operators:', more).replace('listen: { port: 0 }\n', '')}console: ${console}\n`
    expect(await faultsOf({ text, files: { 'keys.json': JSON.stringify({ keys: [publicKey] }) } })).toEqual(faults)
  })

  test('can leave out listen, operators and resource servers', async () => {
    const { config } = await load({ text: sound.replace(/^listen.*\n/m, '').replace(/^operators:[^]*?(?=^providers)/m, '') })
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 7420 })
    expect([config.operators, config.resourceServers]).toEqual([[], []])
  })

  test('names the provider that keeps the key of the log, and its version, which is pinned', async () => {
    const vault = '  - { name: vault, kind: vault, address: "https://vault", auth: { method: token, token_file: t }, token_role: r }\n'
    const { config } = await load({ text: `${sound}${vault}log_key: { provider: vault, key: mayfly-log }\n` })
    expect(config.logKey).toEqual({ provider: 'vault', settings: { mount: 'transit', key: 'mayfly-log', version: 1 } })
    const { config: other } = await load({ text: `${sound}${vault}log_key: { provider: vault, mount: keys/eu, key: log, version: 3 }\n` })
    expect(other.logKey).toEqual({ provider: 'vault', settings: { mount: 'keys/eu', key: 'log', version: 3 } })
    expect((await load({})).config.logKey).toBeUndefined()
  })

  test.each([
    ['{ key: mayfly-log }', ['log_key.provider: is missing']],
    ['{ provider: elsewhere, key: mayfly-log }', ['log_key.provider: is not the name of a provider under providers']],
    ['{ provider: tokens, key: mayfly-log }', ['log_key.provider: is the name of a provider that keeps no key to sign with']],
    [
      '{ provider: vault, mount: ../sys, key: "a/b", version: 0, colour: red }',
      [
        'log_key.colour: is not a known key',
        'log_key.key: must be letters, digits, ".", "_" or "-", at most 128',
        'log_key.mount: must be segments of letters, digits, ".", "_" or "-" with "/" between them',
        'log_key.version: must be 1 at least',
      ],
    ],
    ['mayfly-log', ['log_key: must be a mapping']],
  ])('refuses log_key: %s', async (logKey, faults) => {
    const vault = '  - { name: vault, kind: vault, address: "https://vault", auth: { method: token, token_file: t }, token_role: r }\n'
    const found = await faultsOf({ text: `${sound}${vault}log_key: ${logKey}\n` })
    expect(found.map((fault) => fault.replace('mayfly.yaml:15: ', '')).toSorted()).toEqual(faults)
  })

  test('refuses Vaults that could log in at each other with what the broker signs, and says all of them', async () => {
    const vault = (name: string, address: string, auth: string) =>
      `  - { name: ${name}, kind: vault, address: "https://${address}", auth: { method: jwt, role: r${auth} }, token_role: r }\n`
    const providers = [
      vault('one', 'one', ''),
      vault('two', 'two', ''),
      vault('three', 'three', ', audience: vault'),
      // Each by itself: another audience, a token that somebody else signed, and a further entry of a Vault that is there.
      vault('own', 'own', ', audience: own'),
      vault('platform', 'platform', ', token_file: t'),
      vault('space', 'one/', ''),
    ]
    expect(await faultsOf({ text: sound + providers.join('') })).toEqual([
      'mayfly.yaml:15: providers.2.auth.audience: must be another than that of one: each of the two Vaults could log in at the other with what the broker shows it',
      'mayfly.yaml:16: providers.3.auth.audience: must be another than that of one: each of the two Vaults could log in at the other with what the broker shows it',
      'mayfly.yaml:19: providers.6.auth.audience: must be another than that of two: each of the two Vaults could log in at the other with what the broker shows it',
    ])
    expect((await load({ text: sound + [providers[0], ...providers.slice(3)].join('') })).config.providers).toHaveLength(5)
  })

  test('names anchors for the checkpoints, with absolute paths', async () => {
    const { config, folder } = await load({
      text: `${sound}anchors: [{ file: ./log/checkpoint }, { url: "https://keep.example.com/", token_file: ./token }, { witness: "https://witness.example.com/w1", key: ${witnessKey}, file: ./cosigned }]\n`,
    })
    expect(config.anchors).toEqual([
      { file: path.join(folder, 'log/checkpoint') },
      { url: 'https://keep.example.com/', tokenFile: path.join(folder, 'token') },
      { witness: 'https://witness.example.com/w1', key: parseWitnessKey(witnessKey), file: path.join(folder, 'cosigned') },
    ])
  })

  test('refuses a witness that is not known by its key, or whose cosignatures have nowhere to go', async () => {
    const faults = await faultsOf({
      text: `${sound}anchors: [{ witness: "https://w.example" }, { witness: "http://w.example", key: ${logVerifier}, file: a }, { file: a, key: ${witnessKey} }, { witness: "https://w.example", url: "https://a.example", key: ${witnessKey}, file: a }]\n`,
    })
    expect(faults.map((fault) => fault.replace(/^mayfly.yaml:\d+: /, ''))).toEqual([
      'anchors.0.file: is where the checkpoints are kept that the witness has cosigned',
      'anchors.0.key: must be the verifier key of the witness, name+id+key, of type 4 (an Ed25519 cosignature)',
      'anchors.1.witness: must be an https URL without credentials; http only on loopback',
      'anchors.1.key: must be the verifier key of the witness, name+id+key, of type 4 (an Ed25519 cosignature)',
      'anchors.2.key: is for an anchor with a witness',
      'anchors.3: must have one of file, url and witness',
    ])
  })

  test('refuses anchors that have no address, two of them, or one over which a token must not travel', async () => {
    const faults = await faultsOf({
      text: `${sound}anchors: [{}, { file: a, url: "https://a.example" }, { url: "http://a.example" }, { url: "https://a:b@a.example" }, { file: a, token_file: t }]\n`,
    })
    expect(faults.map((fault) => fault.replace(/^mayfly.yaml:\d+: /, ''))).toEqual([
      'anchors.0: must have one of file, url and witness',
      'anchors.1: must have one of file, url and witness',
      'anchors.2.url: must be an https URL without credentials; http only on loopback',
      'anchors.3.url: must be an https URL without credentials; http only on loopback',
      'anchors.4.token_file: is for an anchor with a url',
    ])
  })

  test('sets limits, level, a Postgres store and a folder of keys', async () => {
    const text = `${changed('{ embedded: ./data }', '{ url: postgres://mayfly@db/mayfly, pool: 20 }')}keys: ../keys
limits: { requests_per_second: 5, burst: 10, introspections_per_second: 7, in_flight: 64, connections: 500, request_timeout: 10s, leases_per_task: 4, stuck_after: 90s }
log: { level: debug }
`
    const { config, folder } = await load({ text })
    expect(config).toMatchObject({
      store: { url: 'postgres://mayfly@db/mayfly', pool: 20 },
      keys: path.join(path.dirname(folder), 'keys'),
      limits: { leasesPerTask: 4, stuckAfter: 90_000 },
      rates: { issue: { burst: 10, perSecond: 5 }, introspect: { burst: 14, perSecond: 7 }, replay: { burst: 3, perSecond: 0.2 } },
      doorLimits: { inFlight: 64, time: 10_000 },
      connections: 500,
      log: { level: 'debug' },
    })
  })

  test('is refused with every fault at once, across its sections, each with its file and line', async () => {
    const text = `public_url: https://broker.example.com/
colour: red
listen: { host: 0.0.0.0, prot: 3 }
store: { url: "\${env:NOPE}" }
catalogue: "\${file:./missing}"
identity:
  - { name: mesh, profile: spiffe }
  - { name: mesh, profile: oidc, issuer: https://x.example.com, keys: ./none.json }
operators:
  - { issuer: nobody, match: {}, roles: [boss] }
resource_servers: 3
providers:
  - { name: tokens, kind: jwt, rotate_every: 1s }
  - { name: tokens, kind: fax }
  - { name: crm, kind: http, url: "http://crm.example.com", revocation: provider, token_file: ./t }
limits:
  burst: 0
  stuck_after: 5
`
    expect(await faultsOf({ text })).toEqual([
      'mayfly.yaml:1: public_url: must not end with a slash',
      'mayfly.yaml:1: policies: is missing',
      'mayfly.yaml:2: colour: is not a known key',
      'mayfly.yaml:3: listen.prot: is not a known key',
      'mayfly.yaml:3: listen.host: beyond loopback needs tls, because credentials travel here; insecure: true where a proxy in front ends TLS',
      'mayfly.yaml:4: store.url: the environment variable NOPE is not set',
      'mayfly.yaml:5: catalogue: ./missing cannot be read (ENOENT)',
      'mayfly.yaml:7: identity.0.trust_domain: is missing: spiffe needs it',
      'mayfly.yaml:7: identity.0.keys: is missing: spiffe needs the address of the bundle, or a file with it',
      'mayfly.yaml:8: identity.1.keys: cannot be read (ENOENT)',
      'mayfly.yaml:8: identity.1.name: is the name of an issuer above',
      'mayfly.yaml:10: operators.0.match: must name at least one attribute, or it would match everybody of the issuer',
      'mayfly.yaml:10: operators.0.roles.0: must be one of operator, reviewer',
      'mayfly.yaml:10: operators.0.issuer: is not the name of an issuer under identity',
      'mayfly.yaml:11: resource_servers: must be a list',
      'mayfly.yaml:13: providers.0.rotate_every: must be a duration from "1h" to "2160h"',
      'mayfly.yaml:14: providers.1.name: is the name of a provider above',
      'mayfly.yaml:14: providers.1.kind: is not a kind of provider: jwt, http, vault, aws-sts',
      'mayfly.yaml:15: providers.2.url: must be https, because secrets travel over it; http only on loopback',
      'mayfly.yaml:17: limits.burst: must be 1 at least',
      'mayfly.yaml:18: limits.stuck_after: must be a duration from "1s" to "24h"',
    ])
  })

  test('is refused for a match by what no token of the issuer proves, and read once the issuer proves it', async () => {
    const text = sound
      .replace('{ groups: sec-ops }', '{ groups: sec-ops, email: ann@example.com }')
      .replace('{ sub: invoices }', '{ subject: invoices }')
    const fault = 'is nothing that tokens of this issuer prove; where it is of profile oidc, name it under its claims'
    expect(await faultsOf({ text })).toEqual([
      `mayfly.yaml:9: operators.0.match.email: ${fault}`,
      `mayfly.yaml:11: resource_servers.0.match.subject: ${fault}`,
    ])
    const proven = text.replace('profile: oidc,', 'profile: oidc, require: { email: [ann@example.com] }, claims: [subject],')
    expect(await faultsOf({ text: proven })).toEqual([])
  })

  const oidc = '{ name: corp, profile: oidc, issuer: https://login.example.com }'
  const second = (entry: string): string => changed(oidc, `${oidc}\n  - ${entry}`)
  const url = (text: string): string => changed('https://broker.example.com', text)
  const faulty: readonly (readonly [string, string, string])[] = [
    ['a key that stands twice', `${sound}policies: ./other\n`, 'mayfly.yaml:14: Map keys must be unique'],
    ['what is no YAML', changed('port: 0 }', 'port: 0 } hunter2 { a'), 'mayfly.yaml:2: Unexpected scalar at node end'],
    ['an empty file', '', 'mayfly.yaml:1: must be a mapping'],
    ['a public URL that is none', url('broker'), 'mayfly.yaml:1: public_url: must be an absolute URL'],
    ['a public URL in clear text', url('http://broker.example.com'), 'mayfly.yaml:1: public_url: must be https; http only on loopback'],
    ['credentials in it', url('https://a:b@broker.example.com'), 'mayfly.yaml:1: public_url: must not carry credentials, a query or a fragment'],
    ['a query in it', url('https://broker.example.com?'), 'mayfly.yaml:1: public_url: must not carry credentials, a query or a fragment'],
    ...[
      'https://Broker.example.com',
      'https://broker.example.com:443',
      'https://broker.example.com/a/../b',
      'https://broker.example.com//a',
      'https://broker.example.com/%61',
      'https:broker.example.com',
      ' https://broker.example.com',
    ].map(
      (text) =>
        [
          `the spelling "${text}" of it`,
          url(`"${text}"`),
          'mayfly.yaml:1: public_url: must be in its plainest form: lower-case host, no default port, plain path segments',
        ] as const,
    ),
    ['a port that is none', changed('port: 0', 'port: 65536'), 'mayfly.yaml:2: listen.port: must be 65535 at most'],
    [
      'a store that is two',
      changed('{ embedded: ./data }', '{ embedded: ./data, url: postgres://db/x }'),
      'mayfly.yaml:3: store: must have one of embedded and url',
    ],
    ['a store that is none', changed('{ embedded: ./data }', '{}'), 'mayfly.yaml:3: store: must have one of embedded and url'],
    ['a store of another make', changed('{ embedded: ./data }', '{ url: mysql://db/x }'), 'mayfly.yaml:3: store.url: must be a postgres:// URL'],
    ['a pool for a folder', changed('./data }', './data, pool: 3 }'), 'mayfly.yaml:3: store.pool: is for a store with a url'],
    [
      'no issuer at all',
      changed(`\n  - ${oidc}`, ' []').replace(/^operators:[^]*?(?=^providers)/m, ''),
      'mayfly.yaml:6: identity: must have at least one issuer, or nobody could call',
    ],
    ['no provider at all', changed('\n  - { name: tokens, kind: jwt }', ' []'), 'mayfly.yaml:12: providers: must have at least one provider'],
    [
      'an issuer called unknown',
      second('{ name: unknown, profile: github-actions }'),
      'mayfly.yaml:8: identity.1.name: stands for all strangers in the metrics',
    ],
    [
      'an unknown profile',
      second('{ name: b, profile: saml }'),
      'mayfly.yaml:8: identity.1.profile: must be one of spiffe, kubernetes, github-actions, oidc',
    ],
    [
      'the same issuer twice',
      second('{ name: b, profile: oidc, issuer: https://login.example.com }'),
      'mayfly.yaml:8: identity.1.issuer: is that of an issuer above',
    ],
    [
      'an issuer without a URL',
      second('{ name: b, profile: kubernetes }'),
      'mayfly.yaml:8: identity.1.issuer: is missing: exactly as the tokens have it in iss',
    ],
    [
      'an issuer whose keys cannot be discovered',
      second('{ name: b, profile: oidc, issuer: http://x.example.com }'),
      'mayfly.yaml:8: identity.1.keys: is missing: the issuer is no https URL at which keys could be discovered',
    ],
    [
      'keys in clear text',
      second('{ name: b, profile: oidc, issuer: https://x.example.com, keys: http://x.example.com/k }'),
      'mayfly.yaml:8: identity.1.keys: must be a file, or an https URL without credentials (http on loopback or with allow_http)',
    ],
    [
      'another GitHub',
      second('{ name: b, profile: github-actions, issuer: https://ghes.example.com }'),
      'mayfly.yaml:8: identity.1.issuer: is always https://token.actions.githubusercontent.com for github-actions; another one is oidc',
    ],
    [
      'a trust domain outside of SPIFFE',
      second('{ name: b, profile: github-actions, trust_domain: x }'),
      'mayfly.yaml:8: identity.1.trust_domain: is for spiffe only',
    ],
    ['claims outside of OIDC', second('{ name: b, profile: github-actions, claims: [a] }'), 'mayfly.yaml:8: identity.1.claims: is for oidc only'],
    [
      'an HMAC algorithm',
      second('{ name: b, profile: github-actions, algorithms: [HS256] }'),
      'mayfly.yaml:8: identity.1.algorithms.0: must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519',
    ],
    [
      'tokens for ever',
      second('{ name: b, profile: github-actions, max_lifetime: 9999h }'),
      'mayfly.yaml:8: identity.1.max_lifetime: must be a duration from "1m" to "168h"',
    ],
    [
      'an audience that is none',
      changed('audience: https://invoices.example.com', 'audience: invoices'),
      'mayfly.yaml:11: resource_servers.0.audience: must be an absolute URI without a fragment',
    ],
    [
      'a provider name that cannot be a file name',
      changed('name: tokens', 'name: ../tokens'),
      'mayfly.yaml:13: providers.0.name: must be lower-case letters, digits, ".", "_" or "-", at most 64',
    ],
    [
      'a limit that is no number',
      `${sound}limits: { in_flight: many }\n`,
      'mayfly.yaml:14: limits.in_flight: must be a whole number from 1 to 100000',
    ],
    ['an unknown level', `${sound}log: { level: loud }\n`, 'mayfly.yaml:14: log.level: must be one of debug, info, warn, error, silent'],
    [
      'a reference of an unknown sort',
      changed('./catalogue.yaml', '"${vault:x}"'),
      'mayfly.yaml:4: catalogue: "${" begins a reference, which is ${env:NAME} or ${file:PATH}',
    ],
    [
      'a reference without an end',
      changed('./catalogue.yaml', '"${env:X"'),
      'mayfly.yaml:4: catalogue: "${" begins a reference, which is ${env:NAME} or ${file:PATH}',
    ],
  ]
  test.each(faulty)('is refused for %s', async (_, text, fault) => {
    expect(await faultsOf({ text })).toEqual([fault])
  })

  test('takes http, and any host, where nobody else can listen or where it says so', async () => {
    for (const text of [
      'http://127.0.0.1:7420',
      'http://localhost:7420',
      'http://[::1]:7420',
      'https://example.com/broker',
      'https://example.com:8443',
    ])
      expect((await load({ text: url(text) })).config.publicUrl).toBe(text)
    for (const host of ['localhost', '"::1"', '127.0.0.2']) await load({ text: changed('port: 0', `port: 0, host: ${host}`) })
    const { config } = await load({ text: changed('port: 0', 'port: 0, host: 0.0.0.0, insecure: true') })
    expect(config.listen).toEqual({ host: '0.0.0.0', port: 0 })
  })

  test('has two issuers of one trust domain refused, and two of different ones not', async () => {
    const spiffe = (name: string, domain: string): string =>
      `{ name: ${name}, profile: spiffe, trust_domain: ${domain}, keys: https://bundle.example.com }`
    const both = (domain: string): string => changed(oidc, `${oidc}\n  - ${spiffe('a', 'prod.example.com')}\n  - ${spiffe('b', domain)}`)
    expect(await faultsOf({ text: both('prod.example.com') })).toEqual(['mayfly.yaml:9: identity.2.trust_domain: is that of an issuer above'])
    const { config } = await load({ text: both('dev.example.com') })
    expect(config.identity[2]).toMatchObject({ trustDomain: 'dev.example.com', keys: { url: 'https://bundle.example.com' } })
  })
})

describe('a reference', () => {
  test('stands for a variable or a file, alone or inside of text, and for a number too', async () => {
    const text = changed('{ embedded: ./data }', '{ url: "postgres://mayfly:${file:./secrets/password}@${env:DB_HOST}/mayfly", pool: "${env:POOL}" }')
    const { config } = await load({ text, files: { 'secrets/password': 'hunter2\n' }, environment: { DB_HOST: 'db', POOL: '7' } })
    expect(config.store).toEqual({ url: 'postgres://mayfly:hunter2@db/mayfly', pool: 7 })
  })

  test('is resolved once: what it stands for is not read again', async () => {
    const { config, folder } = await load({
      text: changed('./catalogue.yaml', '"${env:CATALOGUE}"'),
      environment: { CATALOGUE: '${file:/etc/passwd}' },
    })
    expect(config.catalogue).toBe(path.join(folder, '${file:', 'etc', 'passwd}'))
  })

  test('to nothing, to an empty variable or to what every object has is a fault that names it', async () => {
    const text = changed('./catalogue.yaml', '"${env:NOWHERE}/${env:EMPTY}/${env:constructor}"')
    expect(await faultsOf({ text, environment: { EMPTY: '' } })).toEqual([
      'mayfly.yaml:4: catalogue: the environment variable NOWHERE is not set',
      'mayfly.yaml:4: catalogue: the environment variable EMPTY is not set',
      'mayfly.yaml:4: catalogue: the environment variable constructor is not set',
    ])
  })

  test('to a folder, to what is too large or to what is no text is a fault', async () => {
    const files = { 'f/x': '', large: 'a'.repeat(65_537), binary: new Uint8Array([0xff, 0xfe]) }
    expect(await faultsOf({ text: changed('./catalogue.yaml', '"${file:f}${file:large}${file:binary}"'), files })).toEqual([
      'mayfly.yaml:4: catalogue: f cannot be read (EISDIR)',
      'mayfly.yaml:4: catalogue: large has more than 65536 bytes',
      'mayfly.yaml:4: catalogue: binary is not UTF-8 text',
    ])
  })

  test('never brings what it stands for into a fault, wherever it is put', async () => {
    const secret = 's3cr3t-Value'
    // Every scalar of a whole configuration in turn.
    const whole = `public_url: V
listen: { host: V, port: V, tls: { cert: V, key: V, client_ca: V }, insecure: V }
store: { url: V, embedded: V, pool: V }
keys: V
catalogue: V
policies: V
identity:
  - { name: V, profile: V, issuer: V, trust_domain: V, keys: V, algorithms: [V], max_lifetime: V, replay: V, allow_http: V, allow_private: V, require: { a: V }, claims: [V] }
  - { name: corp, profile: oidc, issuer: V, keys: V }
  - { name: corp, profile: oidc, issuer: V, keys: "https://V" }
operators:
  - { issuer: V, match: { sub: V }, roles: [V] }
resource_servers:
  - { issuer: V, match: { sub: V }, audience: V }
providers:
  - { name: V, kind: V }
  - { name: crm, kind: http, url: V, token_file: V, mtls: { cert: V, key: V }, ca: V, revocation: V, timeout: V, concurrency: V, allow_http: V }
limits: { requests_per_second: V, burst: V, introspections_per_second: V, in_flight: V, connections: V, request_timeout: V, leases_per_task: V, stuck_after: V }
log: { level: V }
extra: V
`
    const text = whole.replaceAll('"https://V"', '"https://${env:SECRET}"').replaceAll(/\bV\b/g, '"${env:SECRET}"')
    const faults = await faultsOf({ text, environment: { SECRET: secret } })
    expect(faults.length).toBeGreaterThan(25)
    expect(faults.join('\n').toLowerCase()).not.toContain('s3cr3t')
  })
})

describe('each field of the whole configuration', () => {
  const pem = 'tls/broker.pem'
  const whole = {
    public_url: 'https://broker.example.com',
    listen: { host: '127.0.0.1', port: 0, tls: { cert: pem, key: pem, client_ca: pem }, insecure: false },
    store: { url: 'postgres://db/mayfly', pool: 5 },
    keys: './keys',
    catalogue: './catalogue.yaml',
    policies: './policies',
    identity: [
      {
        name: 'corp',
        profile: 'oidc',
        issuer: 'https://login.example.com',
        keys: 'https://login.example.com/keys',
        algorithms: ['ES256'],
        max_lifetime: '1h',
        replay: 'reusable',
        allow_http: false,
        allow_private: false,
        require: { tenant: ['a'] },
        claims: ['groups'],
      },
      { name: 'mesh', profile: 'spiffe', trust_domain: 'prod.example.com', keys: 'https://bundle.example.com' },
    ],
    operators: [{ issuer: 'corp', match: { groups: 'sec-ops' }, roles: ['operator'] }],
    console: { issuer: 'corp', client_id: 'mayfly', client_secret: 'secret', scopes: ['groups'], session: '1h' },
    resource_servers: [{ issuer: 'corp', match: { sub: 'invoices' }, audience: 'https://invoices.example.com' }],
    providers: [
      { name: 'tokens', kind: 'jwt', algorithm: 'ES256', rotate_every: '24h' },
      {
        name: 'crm',
        kind: 'http',
        url: 'https://crm.example.com',
        token_file: 't',
        mtls: { cert: 'c', key: 'k' },
        ca: 'ca',
        revocation: 'provider',
        timeout: '5s',
        concurrency: 4,
        allow_http: false,
      },
      {
        name: 'vault',
        kind: 'vault',
        address: 'https://vault.example.com',
        nodes: ['https://vault-2.example.com'],
        namespace: 'team',
        auth: { method: 'approle', mount: 'approle', role_id: 'r', secret_id_file: 's' },
        token_role: 'mayfly-task',
        ca: 'ca',
        mtls: { cert: 'c', key: 'k' },
        timeout: '5s',
        concurrency: 4,
        allow_http: false,
      },
      {
        name: 'aws',
        kind: 'aws-sts',
        region: 'eu-central-1',
        account: '111122223333',
        partition: 'aws',
        endpoint: 'https://sts.example.com',
        external_id: 'mayfly',
        longest_session: '1h',
        session_tags: true,
        mode: 'auto',
        child_ttl: '120s',
        kill_list: { carrier: 'boundary', policy: 'kill-{role}', capacity: 1_000 },
        iam_endpoint: 'https://iam.example.com',
        identity: { method: 'web_identity', audience: 'sts.amazonaws.com', lifetime: '2m' },
        minter: 'minter',
        revoker: 'revoker',
        timeout: '5s',
        concurrency: 4,
      },
    ],
    log_key: { provider: 'vault', key: 'mayfly-log', mount: 'transit', version: 1 },
    anchors: [
      { url: 'https://a.example.com', token_file: 't' },
      { witness: 'https://w.example.com', key: witnessKey, file: 'w' },
    ],
    limits: {
      requests_per_second: 5,
      burst: 10,
      introspections_per_second: 7,
      in_flight: 64,
      connections: 500,
      request_timeout: '10s',
      leases_per_task: 4,
      stuck_after: '90s',
    },
    log: { level: 'info' },
  }

  const files = ['keys.json', pem].reduce((all, name) => ({ ...all, [name]: 'x' }), {})

  test('is named where it has a value of another sort, and what is wanted is said in the words of the house', async () => {
    const folder = await folderWith(files)
    const file = path.join(folder, 'mayfly.yaml')
    async function faultsWith(config: unknown): Promise<readonly string[]> {
      await writeFile(file, JSON.stringify(config))
      const refused: unknown = await loadConfig(file, providerKinds, {}).catch((error: unknown) => error)
      return refused instanceof ConfigurationError ? refused.faults.map((fault) => fault.replace(/^.*?mayfly.yaml:\d+: /, '')) : []
    }
    await expectEachPlaceNamed(whole, faultsWith, ['issuer', 'provider'])
  })
})

describe('paths', () => {
  test('in the settings of a provider are relative to the file, however deep they stand', async () => {
    const entry = `{ name: crm, kind: http, url: https://crm.example.com, token_file: crm-token, mtls: { cert: ./tls/crm.pem, key: ../crm.key }, ca: /etc/ca.pem, revocation: deny }`
    const { config, folder } = await load({ text: `${sound}  - ${entry}\n` })
    expect(config.providers[1]).toEqual({
      name: 'crm',
      kind: 'http',
      settings: {
        url: 'https://crm.example.com',
        token_file: path.join(folder, 'crm-token'),
        mtls: { cert: path.join(folder, 'tls/crm.pem'), key: path.join(path.dirname(folder), 'crm.key') },
        ca: '/etc/ca.pem',
        revocation: 'deny',
        timeout: 10_000,
        concurrency: 16,
        allow_http: false,
      },
    })
  })
})

describe('pinned keys', () => {
  const text = changed('issuer: https://login.example.com', 'issuer: "urn:corp", keys: ./keys.json')

  test('are read when the configuration is, for an issuer that need not be a URL', async () => {
    const { config } = await load({ text, files: { 'keys.json': JSON.stringify({ keys: [publicKey] }) } })
    expect(config.identity[0]?.keys).toEqual({ jwks: { keys: [publicKey] } })
    expect(issuerFaults(config.identity)).toEqual([])
  })

  test('that are not keys, or are more than public, are refused', async () => {
    const of = (content: string) => faultsOf({ text, files: { 'keys.json': content } })
    const none = ['mayfly.yaml:7: identity.0.keys: must be a JWK set in JSON, with one key at least']
    for (const content of ['', '{', '[]', '{"keys":[]}', '{"keys":[{}]}', '{"keys":[],"keys":[{"kty":"EC"}]}'])
      expect(await of(content)).toEqual(none)
    const lost = ['mayfly.yaml:7: identity.0.keys: holds a private key: pin public ones, and replace the one that lies here']
    for (const more of [{ d: 'AAAA' }, { oth: [{ r: 'AAAA', d: 'AAAA', t: 'AAAA' }] }, { k: 'AAAA' }])
      expect(await of(JSON.stringify({ keys: [publicKey, { ...publicKey, ...more }] }))).toEqual(lost)
  })
})

describe.skipIf(!canMakeCertificates())('TLS', () => {
  const text = changed('{ port: 0 }', '{ port: 0, host: 0.0.0.0, tls: { cert: ./CERT, key: ./KEY, client_ca: ./CA } }')
  const certified = async (names: { cert: string; key: string; ca: string }) => {
    const folder = await folderWith({ 'mayfly.yaml': text.replace('CERT', names.cert).replace('KEY', names.key).replace('CA', names.ca) })
    const authority = await createAuthority(folder, 'ca')
    await authority.issue('one', 'IP:127.0.0.1')
    await authority.issue('two', 'IP:127.0.0.1')
    return await loadConfig(path.join(folder, 'mayfly.yaml'), providerKinds, {}).then(
      ({ listen }) => listen,
      (error: unknown) => (error as ConfigurationError).faults.map((fault) => fault.replace(/^.*\//, '')),
    )
  }

  test('is read as text, ready to listen with', async () => {
    expect(await certified({ cert: 'ca-one.pem', key: 'ca-one.key', ca: 'ca.pem' })).toEqual({
      host: '0.0.0.0',
      port: 0,
      tls: {
        cert: expect.stringMatching(/^-----BEGIN CERT/),
        key: expect.stringMatching(/^-----BEGIN PRIV/),
        clientCa: expect.stringMatching(/^-----BEGIN CERT/),
      },
    })
  })

  test('is refused with files that are missing, mixed up, or of two certificates', async () => {
    expect(await certified({ cert: 'ca-one.pem', key: 'ca-two.key', ca: 'ca.pem' })).toEqual([
      'mayfly.yaml:2: listen.tls.key: is not the private key of cert',
    ])
    expect(((await certified({ cert: 'ca-one.key', key: 'ca-one.pem', ca: 'no.pem' })) as string[]).toSorted()).toEqual([
      'mayfly.yaml:2: listen.tls.cert: is not a certificate in PEM',
      'mayfly.yaml:2: listen.tls.client_ca: cannot be read (ENOENT)',
      'mayfly.yaml:2: listen.tls.key: is not a private key without passphrase, in PEM',
    ])
  })
})

describe('mayfly dev', () => {
  const example = path.join(import.meta.dirname, '../deploy/example/mayfly.yaml')
  const overrides: Overrides = {
    publicUrl: 'http://127.0.0.1:4000',
    port: 4000,
    store: { embedded: '/tmp/dev/store' },
    keys: '/tmp/dev/keys',
    localKeys: { keys: [publicKey] },
  }

  test('runs the example with its own address, folders and keys', async () => {
    const config = await loadConfig(example, providerKinds, {}, overrides)
    expect(config).toMatchObject({
      publicUrl: 'http://127.0.0.1:4000',
      listen: { host: '127.0.0.1', port: 4000 },
      store: { embedded: '/tmp/dev/store' },
      keys: '/tmp/dev/keys',
      catalogue: path.join(path.dirname(example), 'catalogue.yaml'),
      identity: [{ name: 'local', keys: { jwks: { keys: [publicKey] } } }],
    })
    expect(issuerFaults(config.identity)).toEqual([])
  })

  test('listens on loopback only, and does not ask for what it replaces', async () => {
    const text = changed('{ port: 0 }', '{ host: 0.0.0.0, tls: { cert: "${file:./none}", key: ./none } }').replace('./data', '"${env:NONE}"')
    const { config } = await load({ text, overrides })
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 4000 })
  })

  test('is what the example is for: other commands can read it, and serving it is refused for want of keys', async () => {
    const config = await loadConfig(example, providerKinds, {})
    expect(config.publicUrl).toBe('http://127.0.0.1:7420')
    expect(issuerFaults(config.identity)).toHaveLength(1)
  })
})

describe('a client', () => {
  test('has its settings from the environment', () => {
    expect(clientSettings({})).toEqual({ url: 'http://127.0.0.1:7420', token: undefined, tokenFile: undefined, colour: true })
    const environment = { MAYFLY_URL: 'https://b.example.com', MAYFLY_TOKEN: 'a', MAYFLY_TOKEN_FILE: '/t', NO_COLOR: '1' }
    expect(clientSettings(environment)).toEqual({ url: 'https://b.example.com', token: 'a', tokenFile: '/t', colour: false })
  })

  test('keeps its workload token from the command that it runs, unless it is told otherwise', () => {
    const environment = { PATH: '/bin', MAYFLY_URL: 'u', MAYFLY_TOKEN: 'a', MAYFLY_TOKEN_FILE: '/t' }
    expect(childEnvironment(environment)).toEqual({ PATH: '/bin', MAYFLY_URL: 'u' })
    expect(wholeEnvironment(environment)).toEqual(environment)
  })
})
