import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ProviderError } from '../../../src/providers/provider.ts'
import { createAsk } from '../../../src/providers/vault/client.ts'
import { judgeAuthority, judgeToken, needsOf } from '../../../src/providers/vault/examine/authority.ts'
import { judgeDatabaseRole, judgeRevocation } from '../../../src/providers/vault/examine/database.ts'
import { examineGrant } from '../../../src/providers/vault/examine/grant.ts'
import { judgeNode, silence } from '../../../src/providers/vault/examine/node.ts'
import { judgeTaskPolicies } from '../../../src/providers/vault/examine/policies.ts'
import { covers, judgeQuotas } from '../../../src/providers/vault/examine/quotas.ts'
import { definitionOf, judgeRole } from '../../../src/providers/vault/examine/roles.ts'
import { judgeTokenRole, tokenRole } from '../../../src/providers/vault/examine/token-role.ts'
import { vaultGrant } from '../../../src/providers/vault/grant.ts'
import { vaultSettings } from '../../../src/providers/vault/settings.ts'
import { deployed } from '../../support/vault.ts'
import { canMakeCertificates, createAuthority } from '../certificates.ts'

const address = 'https://vault:8200'
const now = Date.parse('2026-11-25T12:00:00Z')
const health = { initialized: true, sealed: false, standby: false, version: '2.7.2', server_time_utc: now / 1_000 }
const grantOf = (entry: object) => vaultGrant.parse({ policy: 'mayfly-task-x', ...entry })
const settingsOf = (entry: object = {}) =>
  vaultSettings.parse({ address, token_role: 'mayfly-task', auth: { method: 'token', token_file: '/token' }, ...entry })

/** Findings as short as they can be told. */
const told = (findings: readonly { level: string; message: string }[]): string[] => findings.map(({ level, message }) => `${level}: ${message}`)

describe('the node', () => {
  test.each([
    ['is well', {}, 'ok', /active, version 2\.7\.2/],
    [
      'is a standby that passes on what it must',
      { standby: true },
      'warning',
      /a standby, version 2\.7\.2: what ends at its deadline is never proven/,
    ],
    ['is a standby that answers from old state', { standby: true, version: '2.6.1' }, 'fault', /lead to the active node, or run 2\.6\.2/],
    ['is active where standbys answer from old state', { version: '2.5.0' }, 'warning', /must always lead to the active node/],
    ['is a standby of a version before such reads', { standby: true, version: '2.4.4' }, 'warning', /never proven/],
    [
      "is a standby of HashiCorp's",
      { standby: true, version: '2.5.0', enterprise: false, performance_standby: false },
      'warning',
      /never proven through it/,
    ],
    ["is HashiCorp's, and active", { version: '2.5.0', enterprise: true, performance_standby: false }, 'ok', /active, version 2\.5\.0/],
    [
      'is a performance standby of Vault Enterprise',
      { standby: true, version: '2.1.0+ent', enterprise: true, performance_standby: true },
      'fault',
      /lead to the active node$/,
    ],
    ['is sealed', { sealed: true }, 'fault', /is sealed: unseal it/],
    ['is not initialized', { initialized: false, sealed: true }, 'fault', /operator init/],
  ] as const)('%s', (_, over, level, message) => {
    expect(judgeNode({ address }, { status: 200, body: { ...health, ...over } }, now)[0]).toMatchObject({
      level,
      message: expect.stringMatching(message),
    })
  })

  test.each([
    [
      "HashiCorp's community edition",
      { enterprise: false },
      'team',
      ['warning: there are none without Vault Enterprise, so all of it happens outside of team'],
    ],
    ["HashiCorp's community edition, by a broker outside of them", { enterprise: false }, undefined, []],
    ['Vault Enterprise', { enterprise: true }, 'team', []],
    ['OpenBao', {}, 'team', []],
  ] as const)('at %s a namespace that is asked for and cannot be there is warned of, and no other', (_, over, namespace, messages) => {
    const findings = judgeNode({ address, namespace }, { status: 200, body: { ...health, ...over } }, now).filter(
      ({ subject }) => subject === 'namespace',
    )
    expect(told(findings)).toEqual(messages.map((message) => expect.stringContaining(message)))
  })

  test('is no Vault where something else answers', () => {
    expect(told(judgeNode({ address }, { status: 404, body: undefined }, now))).toEqual([
      expect.stringMatching(/^fault: .*status 404.*another server/),
    ])
    expect(told(judgeNode({ address: 'http://vault:8200' }, { status: 400, body: undefined }, now))).toEqual([
      expect.stringMatching(/listen for https/),
    ])
  })

  test.each([
    [0, 'ok: within 5 s of ours'],
    [5_000, 'ok: within 5 s of ours'],
    [-5_000, 'ok: within 5 s of ours'],
    [6_000, 'warning: 6 s behind ours'],
    [-90_000, 'warning: 90 s ahead of ours'],
  ])('has a clock of which ours is %i ms ahead', (ahead, message) => {
    expect(told(judgeNode({ address }, { status: 200, body: health }, now + ahead))[1]).toMatch(message)
  })

  describe.skipIf(!canMakeCertificates())('behind TLS', () => {
    let folder: string
    beforeAll(async () => (folder = await mkdtemp(path.join(tmpdir(), 'mayfly-examine-'))))
    afterAll(() => rm(folder, { recursive: true }))

    test.each([
      [
        'of an authority that is not trusted',
        'IP:127.0.0.1',
        false,
        /nobody that this machine trusts signed its certificate\. Name the authority in `ca`/,
      ],
      ['for another name', 'DNS:elsewhere.example.com', true, /its certificate is for another name/],
    ])('is not asked with a certificate %s, and says why', async (_, subject, trusted, reason) => {
      const authority = await createAuthority(folder, 'house')
      const { cert, key } = await authority.issue('server', subject)
      const server = createServer({ cert: await readFile(cert), key: await readFile(key) }, (_request, response) => void response.end('{}'))
      await once(server.listen(0, '127.0.0.1'), 'listening')
      const there = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
      const ask = createAsk(settingsOf({ address: there, ...(trusted && { ca: authority.ca }) }), () => {})
      const error: unknown = await ask({ path: 'sys/health' }, new AbortController().signal).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      expect(silence(there, error)).toMatchObject({ level: 'fault', subject: 'address', message: expect.stringMatching(reason) })
      server.close()
      server.closeAllConnections()
    })
  })
})

describe('quotas', () => {
  test.each([
    ['', true],
    ['sys/', true],
    ['sys/leases/', true],
    ['sys/leases/revoke', true],
    ['sys/leases/rev*', true],
    ['sys/leases/renew', false],
    ['sys/leases/revoke-prefix', false],
    ['auth/token/', false],
    ['database/', false],
  ])('of the path "%s" count an end of a lease: %s', (limited, counted) => {
    expect(covers(limited, 'sys/leases/revoke')).toBe(counted)
  })

  test.each([
    [{ path: 'database/', rate: 1, block_interval: 60 }, 'ok'],
    [{ path: 'auth/token/', rate: 1_000, block_interval: 60 }, 'fault'],
    [{ path: 'auth/token/', rate: 1_000 }, 'warning'],
    [{ path: '', rate: 600, interval: 60 }, 'fault'],
    [{ path: '', rate: 3_000, interval: 60 }, 'warning'],
  ])('%j: %s', (limit, level) => {
    expect(judgeQuotas([{ name: 'one', ...limit }]).map((finding) => finding.level)).toEqual([level])
  })
})

describe('the token role', async () => {
  const shipped = JSON.parse(await readFile(path.join(deployed, 'token-role.json'), 'utf8')) as object
  // Vault answers with seconds.
  const role = { ...shipped, token_explicit_max_ttl: 86_400 }
  const fitting = { policies: ['mayfly-task-x'], own: ['mayfly-broker'], longest: 1_800 }
  const judge = (over: object, fits: object = {}) =>
    told(judgeTokenRole('mayfly-task', tokenRole.parse({ ...role, ...over }), { ...fitting, ...fits }))

  test('of deploy/vault is as it should be', () => expect(judge({})).toEqual([expect.stringMatching(/^ok: /)]))

  test.each<[object, RegExp]>([
    [{ token_type: 'batch' }, /^fault: makes tokens of type batch/],
    [{ token_type: 'default-service' }, /^fault: makes tokens of type default-service/],
    [{ token_type: '' }, /^fault: makes tokens of type default-service/],
    [{ orphan: false }, /^fault: its tokens die with the broker's own/],
    [{ renewable: false }, /^fault: its tokens cannot be renewed/],
    [{ period: 60 }, /^fault: gives its tokens a period/],
    [{ token_num_uses: 1 }, /^fault: limits how often/],
    [{ token_explicit_max_ttl: 0 }, /^warning: sets no end/],
    [{ explicit_max_ttl: 1_799 }, /^warning: ends its tokens after 1799 s, and a grant may last 1800 s/],
    [{ disallowed_policies: ['mayfly-task-x', 'mayfly-broker'] }, /^fault: does not give the policy mayfly-task-x/],
    [{ disallowed_policies_glob: ['*-x'] }, /^fault: does not give the policy mayfly-task-x/],
    [{ allowed_policies_glob: ['mayfly-*'], disallowed_policies: ['default'] }, /^fault: could give a task the policy mayfly-broker/],
    [{ allowed_policies: ['default'], disallowed_policies: [] }, /^fault: could give a task the policy default/],
    [{ allowed_policies_glob: ['*'] }, /^fault: allows every policy/],
    [{ allowed_policies_glob: ['mayfly-*-*'], disallowed_policies_glob: ['mayfly-t*k-x'] }, /^fault: does not give the policy mayfly-task-x/],
    [{ allowed_policies_glob: ['mayfly-task.x', 'mayfly-*-y'] }, /^fault: does not give the policy mayfly-task-x/],
    [
      { allowed_policies_glob: ['mayfly-task-x', 'm*broker'], disallowed_policies: ['default'] },
      /^fault: could give a task the policy mayfly-broker/,
    ],
  ])('that says %j is told', (over, message) => expect(judge(over)).toEqual([expect.stringMatching(message)]))

  test('may have a star in the middle of what it allows', () => {
    expect(judge({ allowed_policies_glob: ['mayfly-*-x'] })).toEqual([expect.stringMatching(/^ok: /)])
  })

  test('that names no policies gives those of the broker, and none of a grant', () => {
    expect(judge({ allowed_policies_glob: [] })).toEqual([
      expect.stringMatching(/^fault: names no policies/),
      expect.stringMatching(/^fault: does not give the policy mayfly-task-x/),
    ])
  })
})

describe('a database role', async () => {
  const shipped = JSON.parse(await readFile(path.join(deployed, 'database-role.json'), 'utf8')) as {
    revocation_statements: string[]
    creation_statements: string[]
  }
  const role = { ...shipped, default_ttl: 60, max_ttl: 86_400 }
  const trial = { subject: 'role', grant: grantOf({ path: 'database/creds/x' }), longest: 1_800 }
  const [timeout, noLogin, commit, opening, terminate, look, drop] = shipped.revocation_statements as [
    string,
    string,
    string,
    string,
    string,
    string,
    string,
  ]
  const first = [timeout, noLogin]
  const bare = 'ALTER ROLE "{{name}}" NOLOGIN;'
  const ends = [opening, terminate, look]

  test('of deploy/vault is as it should be', () => expect(judgeDatabaseRole(trial, role)).toEqual([]))

  test.each<[string, object, RegExp]>([
    ['lets logins live ten minutes', { default_ttl: 600 }, /^fault: default_ttl: .* 600 s/],
    ['leaves it to the mount how long logins live', { default_ttl: 0 }, /^fault: default_ttl: .* as long as its mount allows/],
    ['lets logins live less than the grant', { max_ttl: 900 }, /^warning: lets nothing live longer than 900 s/],
    [
      'makes logins without an end',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' CONNECTION LIMIT 20 IN ROLE reader;`] },
      /^fault: creation_statements: without VALID UNTIL/,
    ],
    [
      'makes logins whose end is no end',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL 'infinity' CONNECTION LIMIT 20 IN ROLE reader;`] },
      /^fault: creation_statements: without VALID UNTIL/,
    ],
    [
      'gives each login rights of its own',
      {
        creation_statements: [
          `CREATE ROLE "{{name}}" LOGIN VALID UNTIL '{{expiration}}' CONNECTION LIMIT 20; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";`,
        ],
      },
      /^fault: creation_statements: GRANT … ON/,
    ],
    [
      'makes logins without rights',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN VALID UNTIL '{{expiration}}' CONNECTION LIMIT 20`] },
      /^warning: creation_statements: no IN ROLE/,
    ],
    [
      'makes logins that may take every connection',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN VALID UNTIL '{{expiration}}' IN ROLE reader`] },
      /^warning: creation_statements: without CONNECTION LIMIT/,
    ],
    [
      'makes logins whose limit is none',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN VALID UNTIL '{{expiration}}' CONNECTION LIMIT -1 IN ROLE reader`] },
      /^warning: creation_statements: without CONNECTION LIMIT/,
    ],
    ['is of another database', { creation_statements: [`CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'`] }, /^unchecked: statements/],
  ])('that %s is told', (_, over, message) => expect(told(judgeDatabaseRole(trial, { ...role, ...over }))).toEqual([expect.stringMatching(message)]))

  test('is not judged where it is none', () =>
    expect(told(judgeDatabaseRole(trial, { credential_type: 'iam_user' }))).toEqual([expect.stringMatching(/^unchecked: /)]))

  test('is warned of where its grant says that only time ends what it makes, and no other role is', () => {
    const lasting = { ...trial, grant: grantOf({ path: 'database/creds/x', ended_by: 'time' }) }
    expect(told(judgeDatabaseRole(lasting, role))).toEqual([expect.stringMatching(/^warning: makes logins that their lease ends/)])
    expect(judgeDatabaseRole(lasting, { credential_type: 'assumed_role' })).toEqual([])
  })

  test.each<[string, string[], RegExp | undefined]>([
    ['each step in an entry', shipped.revocation_statements, undefined],
    ['several steps in an entry', [`${timeout} ${terminate} ${bare} COMMIT`, `${opening} ${terminate} ${look} ${drop}`], undefined],
    ['nothing', [], /none/],
    ['blank entries', [' ', ''], /none/],
    ['no COMMIT', [...first, ...ends, drop], /all in one transaction/],
    ['COMMIT before NOLOGIN', [commit, ...first, ...ends, drop], /all in one transaction/],
    ['COMMIT after the sessions', [...first, ...ends, commit, drop], /all in one transaction/],
    ['COMMIT inside of a block', [timeout, terminate, `DO $$ BEGIN ALTER ROLE x NOLOGIN; COMMIT; END $$;`, ...ends, drop], /all in one transaction/],
    ['no end of sessions but before COMMIT', [...first, commit, opening, look, drop], /all in one transaction/],
    ['no NOLOGIN', [commit, ...ends, drop], /without NOLOGIN/],
    ['no end of sessions', [bare, commit, drop], /open sessions are left alone/],
    ['no DROP', [...first, commit, ...ends], /without DROP ROLE/],
    [
      'DROP before the sessions',
      [...first, commit, opening, 'DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}"', terminate, look],
      /^fault: .* is dropped before/,
    ],
    [
      'DROP before the sessions in one block',
      [...first, commit, opening, `DO $$ BEGIN DROP OWNED BY x; DROP ROLE x; PERFORM pg_terminate_backend(1); END $$;`, look],
      /^fault: .* is dropped before/,
    ],
    ['its look after DROP', [...first, commit, opening, terminate, drop, look], /^warning: .* is not noticed/],
    ['no look for what is left', [...first, commit, terminate, opening, drop], /^warning: .* is not noticed/],
    ['nothing for a login that holds its own role', [bare, commit, ...ends, drop], /^warning: .* holds up NOLOGIN/],
    ['a limit on its wait for that alone', [timeout, bare, commit, ...ends, drop], /^warning: .* holds up NOLOGIN/],
    ['an end of sessions before that without a limit', [noLogin, commit, ...ends, drop], /^warning: .* holds up NOLOGIN/],
    ['nothing for sessions that are being opened', [...first, commit, terminate, look, drop], /^warning: .* is being opened/],
    ['nothing for what a login made', [...first, commit, ...ends, 'DROP ROLE "{{name}}"'], /^warning: .* without DROP OWNED/],
    ['nothing for more of it than there are locks', [...first, commit, ...ends, 'DROP OWNED BY x; DROP ROLE x'], /^warning: .* out_of_memory/],
  ])('whose revocation has %s', (_, entries, message) => {
    expect(told(judgeRevocation('role', entries))).toEqual(message === undefined ? [] : [expect.stringMatching(message)])
  })
})

describe('a role', () => {
  const judge = (entry: object, data: object) => told(judgeRole({ subject: 'role', grant: grantOf(entry), longest: 601 }, data))

  test.each<[string, object, object, RegExp | undefined]>([
    ['certificates with the lease that ends them', { path: 'pki/issue/x', ended_by: 'lease' }, { generate_lease: true }, undefined],
    ['certificates without it', { path: 'pki/issue/x', ended_by: 'lease' }, { generate_lease: false }, /^fault: makes certificates without a lease/],
    ['certificates that are forgotten', { path: 'pki/issue/x', ended_by: 'serial' }, { no_store: true }, /^fault: forgets its certificates/],
    ['certificates that are kept', { path: 'pki/issue/x', ended_by: 'serial' }, { no_store: false }, undefined],
    ['certificates with a lease that nobody uses', { path: 'pki/issue/x' }, { generate_lease: true }, /^warning: makes certificates with a lease/],
    ['certificates for too short', { path: 'pki/issue/x' }, { max_ttl: 599 }, /^warning: lets nothing live longer than 599 s/],
    ['signatures for too short', { path: 'ssh/sign/x' }, { max_ttl: 599 }, /^fault: max_ttl: refuses whoever asks for more than 599 s, .* 601 s/],
    ['signatures', { path: 'ssh/sign/x' }, { max_ttl: 0 }, undefined],
    [
      'accounts that stay',
      { path: 'kubernetes/creds/x', engine: 'kubernetes', ended_by: 'lease' },
      { service_account_name: 'app' },
      /^fault: lends a service account that stays/,
    ],
    ['accounts of its own', { path: 'kubernetes/creds/x', engine: 'kubernetes', ended_by: 'lease' }, { service_account_name: '' }, undefined],
    [
      'accounts of its own that nobody uses',
      { path: 'kubernetes/creds/x', engine: 'kubernetes' },
      { service_account_name: '' },
      /^warning: makes a service account for each lease/,
    ],
    [
      'tokens for less than there is',
      { path: 'kubernetes/creds/x', engine: 'kubernetes', ended_by: 'lease' },
      { token_max_ttl: 599 },
      /^fault: token_max_ttl: asks for 599 s at most/,
    ],
  ])('of %s', (_, entry, data, message) => expect(judge(entry, data)).toEqual(message === undefined ? [] : [expect.stringMatching(message)]))

  test.each([
    ['database/creds/reader', 'database/roles/reader'],
    ['teams/db/creds/reader', 'teams/db/roles/reader'],
    ['pki/issue/service', 'pki/roles/service'],
    ['pki/issuer/next/issue/service', 'pki/roles/service'],
    ['teams/issuer/db/creds/reader', 'teams/issuer/db/roles/reader'],
    ['secret/data/app', undefined],
    ['aws/sts/deploy', undefined],
  ])('of the path %s lies at %s', (at, role) => expect(definitionOf(at)?.path).toBe(role))

  test.each([
    ['data/creds/reader', 'leased'],
    ['creds/issue/service', 'pki'],
    ['teams/data/app', 'kv'],
  ])('is of an engine that the path %s tells behind its mount: %s', (at, engine) => expect(grantOf({ path: at }).engine).toBe(engine))
})

describe('what the broker may do', () => {
  const grants = [grantOf({ path: 'pki/issue/x', ended_by: 'serial' })]

  test('has to hold the revocation of certificates where a grant counts on it', () => {
    const needs = needsOf(settingsOf(), grants)
    const found = Object.fromEntries(needs.map(({ path: at, capability }) => [at, [capability]]))
    expect(told(judgeAuthority(found, needs, []))).toEqual([expect.stringMatching(/^ok: opens the 8 paths/)])
    expect(told(judgeAuthority({ ...found, 'pki/revoke': ['deny'] }, needs, []))).toEqual([
      expect.stringMatching(/^fault: does not let it update pki\/revoke, so no certificate can be revoked/),
    ])
  })

  test('may lack the renewal of its own token where it can log in again', () => {
    const auth = { method: 'approle', role_id: 'r', secret_id_file: '/secret' }
    const renewal = (settings: object) => needsOf(settingsOf(settings), []).filter(({ path: at }) => at === 'auth/token/renew-self')
    expect(renewal({ auth })).toMatchObject([{ level: 'warning' }])
    expect(renewal({})).toMatchObject([{ level: 'fault' }])
  })

  test('is told to narrow the role of its login and not the token', () => {
    const auth = { method: 'approle', mount: 'apps', role_id: 'r', secret_id_file: '/secret' } as const
    const token = { policies: ['default'], identity_policies: ['mayfly-broker'], ttl: 60, period: 0, renewable: false }
    expect(told(judgeToken(auth, token))).toEqual([
      expect.stringMatching(/^fault: has the policy default, .* token_no_default_policy=true on the role of auth\/apps$/),
    ])
  })
})

test.each<[string, object, string]>([
  ['a login', { path: 'database/creds/x' }, ' (what it may have made ends by itself within two minutes)'],
  ['a certificate that is revoked', { path: 'pki/issue/x', ended_by: 'serial' }, ' (what it may have made ends by itself within two minutes)'],
  ['a certificate', { path: 'pki/issue/x' }, ' (what it may have made ends by itself within 60 s)'],
  ['a signature', { path: 'ssh/sign/x' }, ' (what it may have made ends by itself within 60 s)'],
  ['an account', { path: 'kubernetes/creds/x', engine: 'kubernetes', ended_by: 'lease' }, ' (what it may have made ends by itself within 605 s)'],
  ['keys that only time ends', { path: 'aws/creds/x', ended_by: 'time' }, ' (what it may have made ends when its role says)'],
  ['a stored value', { path: 'secret/data/x' }, ''],
])('of a trial that failed it is said when ends what it may have made: %s', async (_, entry, left) => {
  const refusal = new ProviderError('refused', 'vault gave no secret', 'maybe')
  const findings = await examineGrant(
    {
      name: 'vault',
      settings: settingsOf(),
      clock: () => now,
      askOpenly: async () => ({ status: 403, body: undefined }),
      ask: async () => ({ status: 403, body: undefined }),
      async mint(_reservation, journal) {
        await journal({ accessor: 'of-the-token' })
        throw refusal
      },
      ending: {
        revoke: () => Promise.reject(refusal),
        recover: () => Promise.reject(refusal),
        contain: () => Promise.reject(refusal),
        revokeLease: () => Promise.reject(refusal),
        revokeCertificate: () => Promise.reject(refusal),
      },
    },
    { name: 'x', settings: grantOf(entry), maxTtl: 1_800_000, parameters: {} },
  )
  expect(told(findings).filter((finding) => finding.startsWith('fault'))).toEqual([
    expect.stringContaining(`fault: vault gave no secret${left}: does the policy`),
  ])
})

test.each<[string, string | null, RegExp]>([
  ['opens its path alone', 'path "database/creds/+" { capabilities = ["read"] }', /^ok: opens nothing but database\/creds\/\+$/],
  [
    'opens it and all below by a star',
    'path "database/creds/*" { capabilities = ["read"] }',
    /^fault: opens more than database\/creds\/\+: take database\/creds\/\* away/,
  ],
  [
    'opens some values of its parameter',
    'path "database/creds/eu" { capabilities = ["read"] }\npath "database/creds/us" { capabilities = ["read"] }',
    /^ok: /,
  ],
  [
    'opens whatever begins with one',
    'path "database/creds/eu*" { capabilities = ["read"] }',
    /^fault: opens more .* take database\/creds\/eu\* away/,
  ],
  [
    'denies what is not its own',
    'path "database/creds/+" { capabilities = ["read"] }\npath "secret/*" {\n  capabilities = ["deny"]\n}',
    /^ok: opens nothing but database\/creds\/\+$/,
  ],
  ['denies and opens nothing', 'path "*" { capabilities = ["deny"] }', /^unchecked: whether it opens more/],
  ['opens a mount', 'path "database/*" { capabilities = ["read"] }', /^fault: opens more than database\/creds\/\+: take database\/\* away/],
  [
    'opens another path in the same line',
    'path "database/creds/+" { capabilities = ["read"] } path "secret/*" { capabilities = ["read"] }',
    /^fault: opens more than database\/creds\/\+: take secret\/\* away/,
  ],
  [
    'opens another path behind what is no comment',
    'path "database/creds/+" { capabilities = ["read"] allowed_parameters = { "a" = ["#"] } } path "secret/*" { capabilities = ["read"] }',
    /^fault: opens more than database\/creds\/\+: take secret\/\* away/,
  ],
  [
    'tells of paths in comments',
    '# the path\n// path "secret/*" {}\n/* path "sys/*"\n{} */ path "database/creds/+" { capabilities = ["read"] } # path',
    /^ok: opens nothing but database\/creds\/\+$/,
  ],
  ['is in JSON', '{ "path": { "secret/*": { "capabilities": ["read"] } } }', /^unchecked: whether it opens more .*bao policy read mayfly-task-x/],
  [
    'is written in two ways',
    'path "database/creds/+" { capabilities = ["read"] }\n"path" "secret/*" { capabilities = ["read"] }',
    /^unchecked: whether it opens more/,
  ],
  ['opens nothing', '', /^unchecked: whether it opens more/],
  ['is not there', null, /^fault: there is no such policy/],
])('a task policy that %s is told', (_, text, message) => {
  const grants = [grantOf({ path: 'database/creds/{db}' })]
  expect(told(judgeTaskPolicies([{ name: 'mayfly-task-x', grants, text }]))).toEqual([expect.stringMatching(message)])
})
