import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { loginOf } from '../../../src/cli/sweep.ts'
import { checkProviders } from '../../../src/main/provider-check.ts'
import type { Finding } from '../../../src/providers/provider.ts'
import { freePort } from '../../support/port.ts'
import { mayfly } from '../../support/program.ts'
import { deployed, type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { type CheckSite, makeCheckSite } from './check-site.ts'

const grants = `  ledger: { provider: vault, path: database/creds/ledger-read, policy: mayfly-task-ledger-read, max_ttl: 30m }
  settings: { provider: vault, path: secret/data/app, policy: mayfly-task-app-settings, max_ttl: 30m, standing: true }
  certificate: { provider: vault, path: pki/issue/service, policy: mayfly-task-service-certificate, max_ttl: 10m, data: { common_name: a.example.com } }
  leased: { provider: vault, path: pki/issue/leased, policy: mayfly-task-leased-certificate, max_ttl: 10m, ended_by: lease, data: { common_name: a.example.com } }
  ssh:
    provider: vault
    path: ssh/sign/deploy
    policy: mayfly-task-deploy-ssh
    max_ttl: 10m
    data: { public_key: "{key}" }
    parameters: { key: { pattern: "[A-Za-z0-9 +/=-]{1,200}" } }
`

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0vHPNd2pKrYb2kSKLPUAgtCqpCSCsgqTdrFHhBWdfx'

describe.runIf(vaultRuns)('mayfly provider check, of a Vault', () => {
  let vault: RunningVault
  let site: CheckSite
  /** What undoes what a test broke, last first. */
  let mend: (() => Promise<unknown>)[] = []

  beforeAll(async () => {
    ;[vault, site] = await Promise.all([startVault(), makeCheckSite(grants)])
  })
  afterEach(async () => {
    for (const undo of mend.toReversed()) await undo()
    mend = []
    expect(await vault.database.logins(), 'logins that a check left behind').toEqual([])
  })
  afterAll(async () => {
    await vault?.stop()
    await site?.remove()
  })

  /** Writes a configuration. @param over of the provider's settings */
  const configure = (over: object = {}): Promise<string> =>
    site.configure({ address: vault.address, auth: { method: 'token', token_file: vault.tokenFile }, ...over })

  /** What a check finds, but for what is well. */
  async function amiss(over: object = {}): Promise<readonly Finding[]> {
    const [checked] = await checkProviders(await configure(over), { only: 'vault', parameters: { key: publicKey } })
    const bad = checked!.findings.filter(({ level }) => level === 'fault' || level === 'warning')
    expect(checked!.ok).toBe(!bad.some(({ level }) => level === 'fault'))
    return bad
  }

  async function root(method: string, at: string, body?: object) {
    const answer = await vault.root<Record<string, unknown>>(method, at, body)
    if (answer.status >= 300) throw new Error(`${method} ${at}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }

  /** Changes keys of what is written at a path, until the test is over. */
  async function change(at: string, keys: object): Promise<void> {
    const { data } = await root('GET', at)
    mend.push(() => root('POST', at, data))
    await root('POST', at, { ...data, ...keys })
  }

  /** Writes the broker's own policy anew, until the test is over. */
  async function changePolicy(edit: (text: string) => string): Promise<void> {
    const text = await readFile(path.join(deployed, 'mayfly-broker.hcl'), 'utf8')
    expect(edit(text)).not.toBe(text)
    mend.push(() => root('POST', 'sys/policies/acl/mayfly-broker', { policy: text }))
    await root('POST', 'sys/policies/acl/mayfly-broker', { policy: edit(text) })
  }

  /** A file with a token for the broker. */
  async function tokenFile(token: string): Promise<{ auth: object }> {
    const file = path.join(site.folder, 'another-token')
    await writeFile(file, token)
    return { auth: { method: 'token', token_file: file } }
  }

  const newToken = async (settings: object): Promise<string> =>
    (await root('POST', 'auth/token/create', { policies: ['mayfly-broker'], no_default_policy: true, ...settings })).auth.client_token

  test('as deploy/vault sets it up finds no fault, makes and ends a secret of each grant, and leaves nothing behind', async () => {
    const ran = await mayfly(['provider', 'check', '--config', await configure(), '--param', `ssh.key=${publicKey}`])

    expect(ran).toMatchObject({ status: 0, stderr: '' })
    expect(ran.stdout.split('\n').map((line) => line.replace(/ {2,}/g, '  ').replace(/127\S+/, 'vault'))).toEqual([
      'PROVIDER  STATE  ABOUT  FINDING',
      'tokens  ok  backend  is this broker itself',
      'vault  ok  node  http://vault is unsealed and active, version 2.7.2',
      'vault  ok  clock  within 5 s of ours',
      'vault  ok  broker token  has the policies mayfly-broker',
      'vault  ok  broker policy  opens the 7 paths that it needs, and none of 41 that it must not',
      'vault  ok  token role mayfly-task  makes orphans of type service that end, with the policies of the grants and no others',
      'vault  ok  quotas  none holds up what ends tokens and leases',
      'vault  ok  grant ledger  made, revoked and gone (provider)',
      'vault  ok  grant settings  read. It stands: nothing ends it (standing)',
      'vault  ok  grant certificate  made. Nothing but its time ends it (expiry)',
      'vault  ok  grant leased  made, revoked and gone (provider: relying parties have to read the revocation list)',
      'vault  ok  grant ssh  made. Nothing but its time ends it (expiry)',
      expect.stringMatching(/^vault {2}unchecked {2}task policies {2}.*mayfly-task-ledger-read/),
      '',
    ])
    const tokens = (await root('GET', 'auth/token/accessors?list=true')).data['keys']
    // Root's and the broker's.
    expect(tokens).toHaveLength(2)
  })

  test('says of a grant with parameters that it was not tried, and how to try it', async () => {
    const [checked] = await checkProviders(await configure(), { only: 'vault' })
    expect(checked!.findings).toContainEqual({ level: 'unchecked', subject: 'grant ssh', message: expect.stringContaining('--param') })
  })

  test('says all that is wrong at once, one finding a line, and exits with 1', async () => {
    endLogins()
    await change('auth/token/roles/mayfly-task', { token_type: 'default-service', token_explicit_max_ttl: 60 })
    await change('database/roles/ledger-read', { default_ttl: 600 })
    await changePolicy((text) => text.replace('"sys/leases/revoke"', '"sys/leases/elsewhere"'))

    const ran = await mayfly(['provider', 'check', 'vault', '--config', await configure()])

    expect(ran).toMatchObject({ status: 1, stderr: '' })
    for (const line of [
      /^vault +FAULT +broker policy +does not let it update sys\/leases\/revoke, so no end can be proven/m,
      /^vault +FAULT +token role mayfly-task +makes tokens of type default-service.* set token_type=service$/m,
      /^vault +warning +token role mayfly-task +ends its tokens after 60 s, and a grant may last 1800 s/m,
      /^vault +FAULT +grant ledger: database\/roles\/ledger-read +default_ttl: .* lives 600 s\. Set default_ttl=60s/m,
      /^vault +FAULT +grant ledger +vault could not end it: permission denied/m,
      /^vault +ok +grant settings /m,
    ])
      expect(ran.stdout).toMatch(line)
  })

  test('exits with 0 where it has only warnings, and answers with JSON where that is wanted', async () => {
    await change('database/roles/ledger-read', { max_ttl: 900 })
    const ran = await mayfly(['provider', 'check', 'vault', '--config', await configure(), '--json'])
    expect(ran).toMatchObject({ status: 0, stderr: '' })
    const [checked] = JSON.parse(ran.stdout) as [{ name: string; ok: boolean; findings: Finding[] }]
    expect(checked).toMatchObject({ name: 'vault', ok: true })
    expect(checked.findings).toContainEqual({
      level: 'warning',
      subject: 'grant ledger: database/roles/ledger-read',
      message: expect.stringContaining('lets nothing live longer than 900 s, and the grant promises 1800 s'),
    })
  })

  test('refuses a provider that the configuration does not have, and a value that the catalogue would refuse', async () => {
    const file = await configure()
    await expect(checkProviders(file, { only: 'vualt' })).rejects.toThrow('no provider is configured with the name "vualt"')
    await expect(checkProviders(file, { parameters: { key: '../sys' } })).rejects.toThrow('--param key, of the grant ssh: must match the pattern')
  })

  /** Once the test is over: logins that could not be ended because of what it broke. */
  const endLogins = (): void => void mend.push(() => root('POST', 'sys/leases/revoke-prefix/database/creds/ledger-read', { sync: true }))

  const onTokenRole = (keys: object) => () => change('auth/token/roles/mayfly-task', keys)
  const onDatabaseRole = (keys: object) => () => change('database/roles/ledger-read', keys)
  const shipped = async (file: string) => JSON.parse(await readFile(path.join(deployed, file), 'utf8')) as Record<string, unknown>
  const shippedConnection = () => shipped('database-config.json')
  const shippedRole = async () => (await shipped('database-role.json')) as { creation_statements: string[] }
  const noLogin = `ALTER ROLE "{{name}}" NOLOGIN;`
  const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';`
  const drop = `DROP ROLE IF EXISTS "{{name}}";`

  test.each<[string, () => Promise<unknown>, RegExp]>([
    [
      'a token role whose tokens are no orphans',
      onTokenRole({ orphan: false }),
      /^token role mayfly-task: its tokens die with the broker's own.* orphan=true$/,
    ],
    [
      'a token role that gives every policy',
      onTokenRole({ allowed_policies_glob: ['*'], disallowed_policies: [] }),
      /^token role mayfly-task: could give a task the policy mayfly-broker: /,
    ],
    [
      'a token role that does not give the policy of a grant',
      onTokenRole({ allowed_policies_glob: ['mayfly-task-l*', 'mayfly-task-s*', 'mayfly-task-d*'] }),
      /^token role mayfly-task: does not give the policy mayfly-task-app-settings, which a grant names/,
    ],
    [
      'tokens without an end that renewals cannot pass',
      onTokenRole({ token_explicit_max_ttl: 0 }),
      /^token role mayfly-task: sets no end that renewals cannot pass/,
    ],
    ['tokens with a period', onTokenRole({ token_period: 3600 }), /^token role mayfly-task: gives its tokens a period/],
    [
      'no token role',
      async () => {
        const { data } = await root('GET', 'auth/token/roles/mayfly-task')
        mend.push(() => root('POST', 'auth/token/roles/mayfly-task', data))
        await root('DELETE', 'auth/token/roles/mayfly-task')
      },
      /^token role mayfly-task: there is no such role/,
    ],
    [
      'logins that live ten minutes of which nobody heard',
      onDatabaseRole({ default_ttl: 600 }),
      /database\/roles\/ledger-read: default_ttl: .* 600 s/,
    ],
    [
      'a revocation in one transaction',
      onDatabaseRole({ revocation_statements: [noLogin, terminate, drop] }),
      /database\/roles\/ledger-read: revocation_statements: all in one transaction: .* COMMIT/,
    ],
    [
      'a revocation without NOLOGIN',
      onDatabaseRole({ revocation_statements: [terminate, drop] }),
      /database\/roles\/ledger-read: revocation_statements: without NOLOGIN/,
    ],
    [
      'a revocation that leaves sessions open',
      async () => {
        endLogins()
        await change('database/roles/ledger-read', { revocation_statements: [] })
      },
      /database\/roles\/ledger-read: revocation_statements: none/,
    ],
    [
      'logins that may take every connection of their database',
      async () => {
        const { creation_statements: statements } = await shippedRole()
        await change('database/roles/ledger-read', { creation_statements: statements.map((text) => text.replace('CONNECTION LIMIT 20 ', '')) })
      },
      /^grant ledger: database\/roles\/ledger-read: creation_statements: without CONNECTION LIMIT/,
    ],
    [
      'logins whose names do not tell their lease',
      async () => {
        const connection = await shippedConnection()
        mend.push(() => root('POST', 'database/config/ledger', connection))
        await root('POST', 'database/config/ledger', { ...connection, username_template: '' })
      },
      /^grant ledger: username_template: the name of the login does not tell its lease/,
    ],
    [
      'certificates without the lease that the grant counts on',
      () => change('pki/roles/leased', { generate_lease: false }),
      /^grant leased: pki\/roles\/leased: makes certificates without a lease, .* generate_lease=true/,
    ],
    [
      'signatures for less than the grant promises',
      () => change('ssh/roles/deploy', { ttl: 300, max_ttl: 300 }),
      /^grant ssh: ssh\/roles\/deploy: max_ttl: refuses whoever asks for more than 300 s, and the grant promises 600 s/,
    ],
    [
      'signatures that are refused even for a trial',
      () => change('ssh/roles/deploy', { ttl: 30, max_ttl: 30 }),
      /^grant ssh: vault gave no secret: it refused with status 400 \(what it may have made ends by itself within 60 s\)/,
    ],
    [
      'a grant whose policy is not there',
      async () => {
        const { data } = await root('GET', 'sys/policies/acl/mayfly-task-ledger-read')
        mend.push(() => root('POST', 'sys/policies/acl/mayfly-task-ledger-read', { policy: data['policy'] }))
        await root('DELETE', 'sys/policies/acl/mayfly-task-ledger-read')
      },
      /^grant ledger: vault gave no task token: it has no policy mayfly-task-ledger-read/,
    ],
    [
      'a grant whose policy does not open its path',
      async () => {
        const { data } = await root('GET', 'sys/policies/acl/mayfly-task-ledger-read')
        mend.push(() => root('POST', 'sys/policies/acl/mayfly-task-ledger-read', { policy: data['policy'] }))
        await root('POST', 'sys/policies/acl/mayfly-task-ledger-read', { policy: 'path "database/creds/other" { capabilities = ["read"] }' })
      },
      /^grant ledger: vault gave no secret: permission denied .*: does the policy mayfly-task-ledger-read let a task read database\/creds\/ledger-read/,
    ],
    [
      'a database that is down',
      async () => {
        mend.push(() => vault.database.wire.mend())
        await vault.database.wire.cut()
      },
      /^grant ledger: vault gave no secret: the backend behind it failed .*: does Vault reach/,
    ],
    [
      'a broker whose policy lacks a line',
      () => changePolicy((text) => text.replace('"auth/token/renew-accessor"', '"auth/token/elsewhere"')),
      /^broker policy: does not let it update auth\/token\/renew-accessor, so no task outlives its first 45 s/,
    ],
    [
      'a broker with sudo',
      () =>
        changePolicy((text) =>
          text.replace('"sys/leases/renew" {\n  capabilities = ["update"', '"sys/leases/renew" {\n  capabilities = ["update", "sudo"'),
        ),
      /^broker policy: gives sudo on sys\/leases\/renew/,
    ],
    [
      'a broker that reads secrets itself',
      () => changePolicy((text) => `${text}\npath "secret/*" { capabilities = ["read"] }`),
      /^broker policy: lets it read secret\/data\/app, so it reads secrets itself/,
    ],
    [
      'a broker that makes tokens of its own',
      () => changePolicy((text) => `${text}\npath "auth/token/create" { capabilities = ["update"] }`),
      /^broker policy: lets it update auth\/token\/create, so it makes tokens with its own rights/,
    ],
    [
      'a broker that writes policies',
      () => changePolicy((text) => `${text}\npath "sys/policies/acl/mayfly-*" { capabilities = ["create", "update", "read"] }`),
      /^broker policy: lets it create, update sys\/policies\/acl\/mayfly-broker/,
    ],
    ...(
      [
        [
          'that writes policies by their older path',
          'sys/policy/*',
          ['update'],
          /lets it update sys\/policy\/mayfly-broker, so it changes what a policy opens/,
        ],
        [
          'that makes tokens by other roles',
          'auth/token/create/*',
          ['update'],
          /lets it update auth\/token\/create\/mayfly-check, so it makes tokens by roles/,
        ],
        ['that lists accessors', 'auth/token/accessors', ['list', 'sudo'], /lets it .*list.* auth\/token\/accessors\/, so it ends whatever token/],
        [
          'that lists leases',
          'sys/leases/lookup/database/*',
          ['list', 'sudo'],
          /lets it .*list.* sys\/leases\/lookup\/database\/creds\/ledger-read\/, /,
        ],
        [
          'that ends leases by prefix',
          'sys/leases/revoke-prefix/*',
          ['update', 'sudo'],
          /sys\/leases\/revoke-prefix\/database\/creds\/ledger-read, so it ends the leases/,
        ],
        [
          'that has leases forgotten',
          'sys/leases/revoke-force/+/creds/+',
          ['update', 'sudo'],
          /sys\/leases\/revoke-force\/database\/creds\/ledger-read, so it has leases/,
        ],
      ] as const
    ).map(([what, at, may, wanted]): [string, () => Promise<unknown>, RegExp] => [
      `a broker ${what}`,
      () => changePolicy((text) => `${text}\npath "${at}" { capabilities = ${JSON.stringify(may)} }`),
      wanted,
    ]),
    [
      'a quota that blocks who has met it',
      async () => {
        mend.push(() => root('DELETE', 'sys/quotas/rate-limit/everything'))
        await root('POST', 'sys/quotas/rate-limit/everything', { rate: 100_000, block_interval: '10s' })
      },
      /^quota everything: turns the broker away for 10 s .* exempt auth\/token\/revoke-accessor and sys\/leases\/revoke/,
    ],
  ])('names %s, and what mends it', async (_, breakIt, wanted) => {
    await breakIt()
    expect((await amiss()).map(({ subject, message }) => `${subject}: ${message}`)).toContainEqual(expect.stringMatching(wanted))
  })

  test('names a task policy that opens more than the path of its grant, where the broker may read policies', async () => {
    await changePolicy((text) => `${text}\npath "sys/policies/acl/+" { capabilities = ["read"] }`)
    expect(await amiss()).toEqual([])
    const { data } = await root('GET', 'sys/policies/acl/mayfly-task-ledger-read')
    mend.push(() => root('POST', 'sys/policies/acl/mayfly-task-ledger-read', { policy: data['policy'] }))
    await root('POST', 'sys/policies/acl/mayfly-task-ledger-read', {
      policy: `${data['policy'] as string}\npath "secret/*" { capabilities = ["read"] }`,
    })
    expect(await amiss()).toEqual([
      { level: 'fault', subject: 'task policy mayfly-task-ledger-read', message: 'opens more than database/creds/ledger-read: take secret/* away' },
    ])
  })

  test('names a database that will not let go of a login, which bears the name of its lease, by which a sweep finds it', async () => {
    endLogins()
    await change('database/roles/ledger-read', { revocation_statements: ['SELECT 1/0;'] })
    expect(await amiss()).toContainEqual({
      level: 'fault',
      subject: 'grant ledger',
      message: expect.stringMatching(/^vault could not end it: the backend behind it failed/),
    })
    const [login, ...others] = await vault.database.logins()
    expect(others).toEqual([])
    expect(loginOf(login!.name)).toEqual({ role: login!.name, lease: expect.stringMatching(/^lease_/) })
  })

  test('does not wait longer for a database that is silent than the provider would, and looks at all the rest', async () => {
    const { wire } = vault.database
    // Cut, because what hung stays silent for ever.
    mend.push(async () => {
      await wire.cut()
      await wire.mend()
    })
    wire.hang()
    const [checked] = await checkProviders(await configure({ timeout: '5s' }), { only: 'vault' })
    expect(checked!.findings).toContainEqual({
      level: 'fault',
      subject: 'grant ledger',
      message: expect.stringMatching(
        /^vault gave no secret in time \(what it may have made ends by itself within two minutes\): .*does Vault reach what stands behind it/,
      ),
    })
    expect(checked!.findings.map(({ subject }) => subject)).toContain('grant settings')
  })

  test('names a root token, and the policy default', async () => {
    expect(await amiss(await tokenFile(vault.rootToken))).toEqual([
      { level: 'fault', subject: 'broker token', message: expect.stringContaining('is a root token') },
    ])
    const token = await newToken({ no_default_policy: false, period: '1h' })
    expect(await amiss(await tokenFile(token))).toEqual([
      { level: 'fault', subject: 'broker token', message: expect.stringMatching(/has the policy default.*-no-default-policy/) },
    ])
    await root('POST', 'auth/token/revoke', { token })
  })

  test('names a token that is over, and one that will be', async () => {
    const over = await newToken({})
    await root('POST', 'auth/token/revoke', { token: over })
    expect(await amiss(await tokenFile(over))).toEqual([
      {
        level: 'fault',
        subject: 'broker token',
        message: expect.stringMatching(/^the broker is not let in by token_file: .*permission denied: put one that lives/),
      },
    ])
    const soon = await newToken({ renewable: false, ttl: '1h' })
    expect(await amiss(await tokenFile(soon))).toEqual([
      { level: 'warning', subject: 'broker token', message: expect.stringContaining('cannot be renewed') },
    ])
    await root('POST', 'auth/token/revoke', { token: soon })
  })

  test('says what it could not look at where its policy is the least that a broker runs with', async () => {
    await changePolicy((text) => text.slice(0, text.indexOf('# From here on')))
    expect(await amiss()).toEqual([])
    const [checked] = await checkProviders(await configure(), { only: 'vault', parameters: { key: publicKey } })
    expect(checked!.findings.filter(({ level }) => level === 'unchecked').map(({ subject }) => subject)).toEqual([
      'broker policy',
      'token role mayfly-task',
      'quotas',
      'grant ledger: database/roles/ledger-read',
      'grant certificate: pki/roles/service',
      'grant leased: pki/roles/leased',
      'grant ssh: ssh/roles/deploy',
      'task policies',
    ])
  })

  test('names a Vault that is sealed, one that is not there, and one that speaks no TLS', async () => {
    const port = new URL(vault.address).port
    const nobody = await freePort()
    mend.push(() => vault.unseal())
    expect(await amiss({ address: `http://127.0.0.1:${nobody}` })).toEqual([
      {
        level: 'fault',
        subject: 'address',
        message: expect.stringContaining('nobody listens there. Is it running, and is the port of `address` right?'),
      },
    ])
    expect(await amiss({ address: `https://127.0.0.1:${port}` })).toEqual([
      { level: 'fault', subject: 'address', message: expect.stringContaining('it does not speak TLS there') },
    ])
    await vault.seal()
    expect(await amiss()).toEqual([{ level: 'fault', subject: 'node', message: expect.stringContaining('is sealed') }])
  })
})
