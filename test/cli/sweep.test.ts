import { execFile } from 'node:child_process'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loginOf, readNames } from '../../src/cli/sweep.ts'
import { newId } from '../../src/base/ids.ts'
import { type Client, createClient } from '../../src/client/client.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { connectAs } from '../support/login.ts'
import { postgresIsInstalled, startPostgres, type TestPostgres } from '../support/postgres.ts'
import { makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'

const run = promisify(execFile)

const catalogue = `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [api, crm, lent] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  crm: { provider: lab, max_ttl: 20m }
  lent: { provider: lab, max_ttl: 20m, standing: true }
`

/** As Vault names the login of a lease, by our template. */
const roleOf = (lease: string, random = 'jdWZPLPP'): string => `mf-token-${lease.replace('_', '-')}-${random}`

describe('mayfly provider sweep', () => {
  let store: OpenedStore
  let lab: Lab
  let site: Site
  let broker: RunningBroker
  let ops: string
  let bot: Client
  /** Leases of the provider `lab`, and one of another. */
  let living: string
  let ended: string
  let elsewhere: string

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openEmbedded(), startLab()])
    site = await makeSite({ store: store.settings, lab: lab.url })
    await site.write('catalogue.yaml', catalogue)
    broker = await site.start()
    ops = await site.token('operator:reader')
    const token = await site.token('agent:bot')
    bot = createClient({ url: broker.url, token })
    const open = async (...grants: string[]) =>
      await bot.open({ kind: 'work', purpose: 'a sweep', grants: grants.map((name) => ({ name, parameters: {} })) })
    const [one, other] = [await open('crm', 'lent'), await open('crm', 'api')]
    living = one.leases[0]!.id
    ;[ended, elsewhere] = [other.leases[0]!.id, other.leases[1]!.id]
    expect((await bot.completeTask(other.id)).ended).toBe(true)
  })
  afterAll(async () => {
    await broker.stop()
    await lab.stop()
    await site.remove()
    await store.dispose()
  })

  const sweep = (names: readonly string[], options: readonly string[] = [], token = ops) =>
    mayfly(['provider', 'sweep', 'lab', ...options], { MAYFLY_URL: broker.url, MAYFLY_TOKEN: token }, names.join('\n'))

  test('names logins of leases that have ended, and leaves alone who lives, who belongs to others and who is nobody that we know', async () => {
    const stranger = newId('lease')
    const names = [
      roleOf(living),
      roleOf(ended),
      roleOf(ended, 'Os2st41K'),
      roleOf(elsewhere),
      roleOf(stranger),
      'mf-operators',
      'mf-token-lease-short-AAAAAAAA',
      'postgres',
      '',
    ]
    const ran = await sweep(names)
    expect(ran).toMatchObject({ status: 0, stderr: '' })
    expect(ran.stdout.split('\n').map((line) => line.replace(/ {2,}/g, '  '))).toEqual([
      'ROLE  LEASE  STATE',
      `${roleOf(ended)}  ${ended}  revoked`,
      `${roleOf(ended, 'Os2st41K')}  ${ended}  revoked`,
      `${roleOf(stranger)}  ${stranger}  unknown to this ledger`,
      '2 lost, 1 unknown to this ledger, 2 kept for their leases, 3 not ours',
      '',
    ])
    const told = JSON.parse((await sweep(names, ['--json'])).stdout) as unknown
    expect(told).toMatchObject({
      lost: [
        { role: roleOf(ended), lease: ended, state: 'revoked' },
        { role: roleOf(ended, 'Os2st41K'), lease: ended },
      ],
      unknown: [{ role: roleOf(stranger), lease: stranger }],
      kept: 2,
      others: 3,
    })
  })

  test('says nothing to an agent, to whom every other lease is unknown', async () => {
    const ran = await sweep([roleOf(ended)], [], await site.token('agent:bot'))
    expect(ran).toMatchObject({ status: 1, stdout: '' })
    expect(ran.stderr).toContain('forbidden')
  })

  test('refuses more names than anybody could mean, before it asks for one', async () => {
    const ran = await sweep(Array.from({ length: 10_001 }, () => 'mf-x'))
    expect(ran).toMatchObject({ status: 2, stdout: '' })
    expect(ran.stderr).toContain('too many names: at most 10000 at once')
  })

  describe.runIf(postgresIsInstalled)('with --sql', () => {
    let cluster: TestPostgres
    let superuser: postgres.Sql
    beforeAll(async () => {
      cluster = (await startPostgres({ own: true }))!
      superuser = postgres(cluster.url, { max: 1, onnotice: () => {} })
    })
    afterAll(async () => {
      await superuser?.end()
      await cluster?.stop()
    })

    test('prints what psql drops them with, sessions and what they made, and nobody else', async () => {
      const names = [roleOf(living), roleOf(ended), roleOf(newId('lease')), 'mf-operators']
      for (const name of names) await superuser.unsafe(`create role "${name}" login password 'p'`)
      const open = (username: string) => connectAs(cluster.url, { username, password: 'p' })
      const sessions = [open(roleOf(living)), open(roleOf(ended))] as const
      for (const session of sessions) await session`select 1`
      await sessions[1]`select lo_create(0)`
      const lost = sessions[1]`select pg_sleep(60)`.then(
        () => 'goes on',
        () => 'is cut',
      )

      const { stdout } = await run('psql', ['-XAt', '-d', cluster.url, '-c', "select rolname from pg_roles where rolname like 'mf-%'"])
      const ran = await sweep(stdout.split('\n'), ['--sql'])
      expect(ran).toMatchObject({ status: 0, stderr: '1 lost, 1 unknown to this ledger, 1 kept for their leases, 1 not ours\n' })
      const psql = run('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', cluster.url])
      psql.child.stdin!.end(ran.stdout)
      await psql

      expect(await lost).toBe('is cut')
      expect(await sessions[0]`select 1 as one`).toHaveLength(1)
      const left = await superuser`select rolname from pg_roles where rolname like 'mf-%'`
      expect(left.map(({ rolname }) => String(rolname)).toSorted()).toEqual(names.filter((name) => name !== roleOf(ended)).toSorted())
      await Promise.all(sessions.map((session) => session.end({ timeout: 0 })))
    })

    /** Those of our logins that psql has left, and what it said. */
    async function dropped(names: readonly string[]): Promise<{ left: string[]; said: string }> {
      const psql = run('psql', ['-XAtq', '-d', cluster.url], { timeout: 30_000 })
      psql.child.stdin!.end((await sweep(names, ['--sql'])).stdout)
      const { stderr } = await psql
      const left = await superuser<{ rolname: string }[]>`select rolname from pg_roles where rolname in ${superuser(names)}`
      return { left: left.map(({ rolname }) => rolname), said: stderr }
    }

    test('is not held up by one who grants such a login something and leaves that open', async () => {
      const names = [roleOf(ended, 'HeldHeld'), roleOf(ended, 'FreeFree')] as const
      for (const name of names) await superuser.unsafe(`create role "${name}" login`)
      const granting = postgres(cluster.url, { max: 1, onnotice: () => {} })
      await granting.unsafe('create table granted ()')
      await granting.unsafe(`begin; grant select on granted to "${names[0]}"`)

      const { left, said } = await dropped(names)
      expect(left).toEqual([names[0]])
      expect(said).toContain('lock timeout')

      await granting.end({ timeout: 0 })
      expect((await dropped(names)).left).toEqual([])
    })

    test('is not held up by a login that holds its own role in a transaction that it leaves open', async () => {
      const name = roleOf(ended, 'OpenOpen')
      await superuser.unsafe(`create role "${name}" login password 'p'`)
      const session = connectAs(cluster.url, { username: name, password: 'p' })
      await session.unsafe("begin; alter role current_user password 'another'")

      expect(await dropped([name])).toMatchObject({ left: [] })
      await session.end({ timeout: 0 })
    })

    test('keeps a login of which a session is left that does not end in time', async () => {
      const names = [roleOf(ended, 'StayStay'), roleOf(ended, 'GoneGone')] as const
      for (const name of names) await superuser.unsafe(`create role "${name}" login password 'p'`)
      const session = connectAs(cluster.url, { username: names[0], password: 'p' })
      const [{ pid }] = await session<[{ pid: number }]>`select pg_backend_pid() as pid`
      process.kill(pid, 'SIGSTOP')
      try {
        const { left, said } = await dropped(names)
        expect(left).toEqual([names[0]])
        expect(said).toContain(`a session of ${names[0]} is left`)
      } finally {
        process.kill(pid, 'SIGCONT')
      }
      expect((await dropped(names)).left).toEqual([])
      await session.end({ timeout: 0 })
    })

    test('prints nothing where nothing is lost', async () => {
      expect(await sweep([roleOf(living)], ['--sql'])).toMatchObject({ status: 0, stdout: '' })
    })
  })

  test('has a list of standing secrets beside it: mayfly lease list --standing', async () => {
    const { stdout, status } = await mayfly(['lease', 'list', '--standing'], { MAYFLY_URL: broker.url, MAYFLY_TOKEN: ops })
    expect(status).toBe(0)
    expect(stdout.trim().split('\n').slice(1)).toEqual([expect.stringMatching(/^lease_\w+ +active STANDING +lent +lab /)])
  })
})

describe('the name of a login', () => {
  const lease = 'lease_01m886jj6feh4bg9khnpcvtq8d'

  test('tells its lease', () => {
    expect(loginOf('mf-token-lease-01m886jj6feh4bg9khnpcvtq8d-Os2st41K')).toEqual({ role: roleOf(lease, 'Os2st41K'), lease })
  })

  test.each([
    'mf-token-lease-01m886jj6feh4bg9khnpcvtq8d',
    'mf-token-lease-01m886jj6feh4bg9khnpcvtq8d-Os2st41',
    'mf-token-lease-01m886jj6feh4bg9khnpcvtq8d-Os2st41"',
    'mf-token-lease-01m886jj6feh4bg9khnpcvtq8d-Os2st41K; drop',
    'mf-token-lease-91m886jj6feh4bg9khnpcvtq8d-Os2st41K',
    'mf-token-lease-01m886jj6feh4bg9khnpcvtqil-Os2st41K',
    'mf-token-task-01m886jj6feh4bg9khnpcvtq8d-Os2st41K',
    'v-token-lease-01m886jj6feh4bg9khnpcvtq8d-Os2st41K',
    'mf-operators',
  ])('is none of ours: %s', (name) => expect(loginOf(name)).toBeUndefined())
})

describe('names that are piped in', () => {
  const read = (...chunks: (string | Buffer)[]) => readNames(Readable.from(chunks))

  test('come in any pieces, with blank lines between', async () => {
    expect(await read('one\r\ntw', 'o\n\n', Buffer.from(' three '))).toEqual(['one', 'two', 'three'])
  })

  test('are at most 10,000 of at most 1,024 characters', async () => {
    expect(await read('x\n'.repeat(10_000))).toHaveLength(10_000)
    await expect(read('x\n'.repeat(10_001))).rejects.toThrow('too many names')
    await expect(read('x'.repeat(1_025))).rejects.toThrow('longer than 1024')
  })

  test('are not read on where they never end', async () => {
    let pieces = 0
    async function* endless() {
      for (;;) {
        pieces++
        yield 'x'.repeat(65_536)
      }
    }
    await expect(readNames(endless())).rejects.toThrow('too many names')
    expect(pieces).toBeLessThan(200)
  })

  test('are not waited for at a terminal', async () => {
    await expect(readNames(Object.assign(Readable.from([]), { isTTY: true }))).rejects.toThrow('pipe the names of roles')
  })
})
