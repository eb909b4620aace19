import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { connectAs, type Login } from './support/login.ts'
import { openbao } from './support/openbao.ts'
import { deployed, type RunningVault, startVault, vaultRuns } from './support/vault.ts'

const run = promisify(execFile)

/** A token of a task, and what it has read. */
interface Minted extends Login {
  readonly token: string
  readonly accessor: string
  readonly lease: string
}

describe.runIf(vaultRuns)('deploy/vault', () => {
  let vault: RunningVault
  let broker: string

  beforeAll(async () => {
    vault = await startVault()
    broker = await readFile(vault.tokenFile, 'utf8')
  })
  afterAll(() => vault?.stop())

  const asBroker = (method: string, at: string, body?: object) => vault.as(broker, method, at, body)
  const create = (settings: object = {}) =>
    asBroker('POST', 'auth/token/create/mayfly-task', { policies: ['mayfly-task-ledger-read'], ttl: '45s', ...settings })
  const revokeLease = (lease: string) => asBroker('POST', 'sys/leases/revoke', { lease_id: lease, sync: true })

  async function mint(grant = 'ledger-read'): Promise<Minted> {
    const { auth } = (await create({ policies: [`mayfly-task-${grant}`], display_name: 'lease_01jd9zk3w5t8y2abcdefghjkmn' })).body
    const { lease_id, data } = (await vault.as(auth.client_token, 'GET', `database/creds/${grant}`)).body
    return { token: auth.client_token, accessor: auth.accessor, lease: lease_id, username: data['username']!, password: data['password']! }
  }

  async function revoke(minted: Minted): Promise<void> {
    expect((await asBroker('POST', 'auth/token/revoke-accessor', { accessor: minted.accessor })).status).toBe(204)
    expect((await revokeLease(minted.lease)).status).toBe(204)
  }

  /** As a broker ends it, which asks again for as long as it is refused. */
  async function endOf({ accessor, lease }: Minted): Promise<void> {
    expect((await asBroker('POST', 'auth/token/revoke-accessor', { accessor })).status).toBe(204)
    await vi.waitFor(async () => expect((await revokeLease(lease)).status).toBe(204), { timeout: 20_000 })
  }

  describe('the policy of the broker', () => {
    test('lets it make a token for a task, and renew and end what was made with it', async () => {
      const { token, accessor, lease } = await mint()
      for (const [at, body] of [
        ['auth/token/renew-accessor', { accessor, increment: 90 }],
        ['sys/leases/lookup', { lease_id: lease }],
        ['sys/leases/renew', { lease_id: lease, increment: 90 }],
      ] as const) {
        expect((await asBroker('POST', at, body)).status, at).toBe(200)
      }
      await revoke({ accessor, lease, token, username: '', password: '' })
      expect((await vault.as(token, 'GET', 'database/creds/ledger-read')).status).toBe(403)
    })

    test('lets it look at and renew its own token, and not end it', async () => {
      const settings = { policies: ['mayfly-broker'], no_default_policy: true, no_parent: true }
      const { auth } = (await vault.root('POST', 'auth/token/create', settings)).body
      const asOther = (method: string, at: string) => vault.as(auth.client_token, method, `auth/token/${at}-self`)
      expect([(await asOther('GET', 'lookup')).status, (await asOther('POST', 'renew')).status, (await asOther('POST', 'revoke')).status]).toEqual([
        200, 200, 403,
      ])
    })

    test.each([
      ['GET', 'auth/token/roles/mayfly-task'],
      ['GET', 'database/roles/ledger-read'],
      ['GET', 'pki/roles/leased'],
      ['GET', 'ssh/roles/deploy'],
      ['GET', 'sys/quotas/rate-limit/everything'],
      ['GET', 'sys/quotas/rate-limit?list=true'],
      ['POST', 'sys/capabilities-self', { path: 'sys/raw' }],
    ])('lets it see how things are set up: %s %s', async (method, at, body?: object) => {
      await vault.root('POST', 'sys/quotas/rate-limit/everything', { rate: 100_000 })
      expect((await asBroker(method, at, body)).status).toBe(200)
    })

    test.each([
      ['POST', 'auth/token/create', { policies: ['mayfly-task-ledger-read'] }],
      ['POST', 'auth/token/create', {}],
      ['POST', 'auth/token/create-orphan', { policies: ['mayfly-task-ledger-read'] }],
      ['POST', 'auth/token/create/another', {}],
      ['POST', 'auth/token/roles/mayfly-task', { orphan: false }],
      ['DELETE', 'auth/token/roles/mayfly-task'],
      ['GET', 'auth/token/accessors?list=true'],
      ['POST', 'auth/token/lookup-accessor', { accessor: 'somebody' }],
      ['POST', 'auth/token/revoke', { token: 's.somebody' }],
      ['POST', 'auth/token/revoke-orphan', { token: 's.somebody' }],
      ['POST', 'auth/token/tidy'],
      ['GET', 'sys/leases/lookup/database/creds/ledger-read?list=true'],
      ['POST', 'sys/leases/revoke-prefix/database'],
      ['POST', 'sys/leases/revoke-force/database'],
      ['POST', 'sys/leases/tidy'],
      ['GET', 'sys/policies/acl/mayfly-broker'],
      ['POST', 'sys/policies/acl/mayfly-broker', { policy: 'path "*" { capabilities = ["sudo"] }' }],
      ['POST', 'sys/policies/acl/mayfly-task-more', { policy: 'path "*" { capabilities = ["read"] }' }],
      ['GET', 'database/creds/ledger-read'],
      ['GET', 'database/config/ledger'],
      ['POST', 'database/config/ledger', { connection_url: 'postgresql://elsewhere' }],
      ['POST', 'database/roles/ledger-read', { db_name: 'ledger' }],
      ['POST', 'database/rotate-root/ledger'],
      ['GET', 'secret/data/app'],
      ['GET', 'secret/metadata/app'],
      ['POST', 'pki/issue/service', { common_name: 'a' }],
      ['POST', 'pki/revoke', { serial_number: '00' }],
      ['POST', 'ssh/sign/deploy', { public_key: 'ssh-ed25519 AAAA' }],
      ['POST', 'sys/quotas/rate-limit/everything', { rate: 1 }],
      ['GET', 'sys/mounts'],
      ['POST', 'sys/mounts/more', { type: 'kv' }],
      ['POST', 'sys/audit/file', { type: 'file' }],
      ['PUT', 'sys/seal'],
    ])('lets it do nothing else: %s %s', async (method, at, body?: object) => {
      expect((await asBroker(method, at, body)).status).toBe(403)
    })
  })

  describe('the role of tokens for tasks', () => {
    test.each(['root', 'default', 'mayfly-broker', 'anything-else'])('gives no token the policy %s', async (policy) => {
      expect((await create({ policies: ['mayfly-task-ledger-read', policy] })).status).toBe(400)
    })

    test('makes orphans of the kind that can be revoked, without the default policy, for a day at most', async () => {
      const { body } = await create({ type: 'batch', ttl: '1000h', no_default_policy: false })
      expect(body.auth).toMatchObject({ orphan: true, token_type: 'service', policies: ['mayfly-task-ledger-read'], renewable: true })
      expect(body.auth.lease_duration).toBe(24 * 60 * 60)
    })
  })

  test.each(['app-settings', 'service-certificate', 'deploy-ssh', 'ledger-read'])(
    'the policy mayfly-task-%s opens its one path alone',
    async (policy) => {
      const { auth } = (await create({ policies: [`mayfly-task-${policy}`] })).body
      const paths = {
        'app-settings': ['GET', 'secret/data/app'],
        'service-certificate': ['POST', 'pki/issue/service', { common_name: 'a.example.com' }],
        'deploy-ssh': ['POST', 'ssh/sign/deploy', { public_key: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0vHPNd2pKrYb2kSKLPUAgtCqpCSCsgqTdrFHhBWdfx' }],
        'ledger-read': ['GET', 'database/creds/ledger-read'],
        nothing: ['GET', 'auth/token/lookup-self'],
      } as const
      for (const [name, [method, at, body]] of Object.entries(paths)) {
        const answer = await vault.as(auth.client_token, method, at, body)
        expect(answer.status, at).toBe(name === policy ? 200 : 403)
        if (answer.body.lease_id) await revokeLease(answer.body.lease_id)
      }
    },
  )

  describe('a login of the database', () => {
    test('reads what its group may read, bears the name of its lease, and ends by itself within seconds of a minute', async () => {
      const minted = await mint()
      expect(minted.username).toMatch(/^mf-token-lease-01jd9zk3w5t8y2abcdefghjkmn-\w{8}$/)
      const session = await vault.database.login(minted.username, minted.password)
      expect(await session.query('select * from bookings')).toHaveLength(3)
      await expect(session.query('delete from bookings')).rejects.toMatchObject({ code: '42501' })
      await expect(session.query('create table mine (id int)')).rejects.toMatchObject({ code: '42501' })
      const [role] = await vault.database.superuser`
        select rolvaliduntil between now() + interval '35 s' and now() + interval '70 s' as soon from pg_roles where rolname = ${minted.username}`
      expect(role).toEqual({ soon: true })
      await session.close()
      await revoke(minted)
    })

    test('is refused once it is revoked, and its open session is cut', async () => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      await revoke(minted)
      expect(await session.alive()).toBe(false)
      await expect(vault.database.login(minted.username, minted.password)).rejects.toMatchObject({ code: '28P01' })
      await session.close()
    })

    test.each([
      ['a large object', 'select lo_create(0)'],
      ['rights on whatever it would make', 'alter default privileges grant select on tables to public'],
    ])('is gone with what it made: %s', async (_, statement) => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      await session.query(statement)
      await revoke(minted)
      expect(await vault.database.logins()).toEqual([])
      await session.close()
    })

    test.each<[string, (minted: Minted) => Promise<unknown>, (minted: Minted) => Promise<unknown>]>([
      [
        'it made something in another database',
        (minted) => elsewhere(minted, 'select lo_create(4711)'),
        (minted) => elsewhere({ ...minted, username: 'postgres' }, 'select lo_unlink(4711)'),
      ],
      [
        'somebody else needs what it owns',
        ({ username }) =>
          superuser().unsafe(`create table owned (id int); alter table owned owner to "${username}"; create view needing as select * from owned`),
        () => superuser().unsafe('drop view needing'),
      ],
    ])('is without login and rights once it is revoked though its role has to stay, for the sweep to tell of: %s', async (_, keep, release) => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      await keep(minted)
      await revoke(minted)
      expect(await session.alive()).toBe(false)
      await expect(vault.database.login(minted.username, minted.password)).rejects.toMatchObject({ code: '28000' })
      const [rights] = await superuser()`select pg_has_role(${minted.username}, 'ledger_read', 'member') as member`
      expect(rights).toEqual({ member: false })
      expect(await sweep()).toMatch(new RegExp(`${minted.username} .* kept: `))
      await release(minted)
      expect(await sweep()).toMatch(new RegExp(`${minted.username} .* dropped`))
      await session.close()
    })

    test('is not kept from ending by another one that grants it something and leaves that open', async () => {
      const [minted, other] = [await mint(), await mint()]
      const granting = await vault.database.login(other.username, other.password)
      await granting.query(`begin; alter default privileges grant select on tables to "${minted.username}"`)
      await revoke(minted)
      await expect(vault.database.login(minted.username, minted.password)).rejects.toMatchObject({ code: '28000' })
      await revoke(other)
      await granting.close()
      expect(await sweep()).toMatch(new RegExp(`${minted.username} .* dropped`))
    })

    test('ends though it holds its own role in a transaction that it leaves open, and others are made and ended meanwhile', async () => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      try {
        await session.query("begin; alter role current_user password 'another'")
        const ended = endOf(minted)
        await revoke(await mint())
        await ended
        expect(await session.alive()).toBe(false)
      } finally {
        await session.close()
      }
      expect(await vault.database.logins()).toEqual([])
    })

    test('leaves no session of its own that is still being opened, and lets in everybody else whose is', async () => {
      const [minted, other] = [await mint(), await mint()]
      // Postgres has let them in, with the rights of their group, and shows them to nobody until their time is up.
      const lurk = ({ username, password }: Minted) => {
        const client = connectAs(vault.database.url, { username, password }, { role: 'ledger_read', post_auth_delay: 600 })
        client`select * from bookings`.catch(() => {})
        return client
      }
      const clients = [lurk(minted)]
      let silent: Socket | undefined
      try {
        const [own] = await opened({ in: 1, before: 0 })
        clients.push(lurk(other))
        await opened({ in: 2, before: 0 })
        silent = await knock(other.username)
        const others = (await opened({ in: 2, before: 1 })).filter((pid) => pid !== own)
        await revoke(minted)
        expect(await alive([own!, ...others])).toEqual(others)
      } finally {
        silent?.destroy()
        for (const client of clients) await client.end({ timeout: 0 })
      }
      await revoke(other)
      expect(await opened({ in: 0, before: 0 })).toEqual([])
      expect(await vault.database.logins()).toEqual([])
      expect(await superuser()`select from pg_auth_members where member = 'mayfly_vault'::regrole and admin_option = false`).toHaveLength(1)
    })

    test('is revoked though it made more than the database has locks for, and is without login and rights until the sweep takes all of it away', async () => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      await session.query('select count(lo_create(0)) from generate_series(1, 30000)')
      await revoke(minted)
      await expect(vault.database.login(minted.username, minted.password)).rejects.toMatchObject({ code: '28000' })
      const [rights] = await superuser()`select pg_has_role(${minted.username}, 'ledger_read', 'member') as member`
      expect(rights).toEqual({ member: false })
      expect(await sweep()).toMatch(new RegExp(`${minted.username} .* dropped`))
      const [left] = await superuser()`select count(*)::int from pg_largeobject_metadata`
      expect(left).toEqual({ count: 0 })
      await session.close()
    })

    test('has twenty sessions at once and no more, so that it keeps nobody out', async () => {
      const minted = await mint()
      const sessions = await Promise.all(Array.from({ length: 20 }, () => vault.database.login(minted.username, minted.password)))
      await expect(vault.database.login(minted.username, minted.password)).rejects.toMatchObject({ code: '53300' })
      await revoke(minted)
      expect(await Promise.all(sessions.map((session) => session.alive()))).toEqual(sessions.map(() => false))
      await Promise.all(sessions.map((session) => session.close()))
    })

    test('is not said to be revoked while a session of it lives that does not end in time', async () => {
      const minted = await mint()
      const session = await vault.database.login(minted.username, minted.password)
      const [{ pid }] = (await session.query('select pg_backend_pid() as pid')) as [{ pid: number }]
      await asBroker('POST', 'auth/token/revoke-accessor', { accessor: minted.accessor })
      process.kill(pid, 'SIGSTOP')
      try {
        expect((await revokeLease(minted.lease)).status).toBe(400)
        expect(await session.alive()).toBe(true)
      } finally {
        process.kill(pid, 'SIGCONT')
      }
      expect((await revokeLease(minted.lease)).status).toBe(204)
      expect(await session.alive()).toBe(false)
      await session.close()
    })

    test('is revoked as well when its role has been dropped behind the back of OpenBao', async () => {
      const minted = await mint()
      await vault.database.superuser.unsafe(`drop role "${minted.username}"`)
      await revoke(minted)
    })

    test.each(['ledger-read', 'ledger-read-2'])(
      'leaves no session behind to six loops that reconnect and take on the rights of its group: %s',
      async (grant) => {
        for (let nth = 0; nth < 8; nth++) {
          const minted = await mint(grant)
          const attack = await startAttack(minted)
          await revoke(minted)
          expect(await attack.left()).toBe(0)
          await attack.stop()
        }
      },
    )
  })

  /** Six clients that reconnect as fast as they are cut. Ready when each has been in. */
  async function startAttack(login: Minted) {
    const { url, superuser } = vault.database
    const [{ oid }] = await superuser<[{ oid: number }]>`select oid from pg_roles where rolname = ${login.username}`
    let over = false
    async function reconnect(isIn: () => void): Promise<void> {
      while (!over) {
        const client = connectAs(url, login)
        const refused = await client.unsafe('set role ledger_read; select * from bookings').then(isIn, refusalOf)
        if (refused) return await client.end({ timeout: 0 })
        // Until it is cut.
        await client`select pg_sleep(60)`.catch(() => {})
        await client.end({ timeout: 0 })
      }
    }
    const loops: Promise<void>[] = []
    await Promise.all(Array.from({ length: 6 }, () => new Promise<void>((resolve) => loops.push(reconnect(resolve)))))
    let onTheWay = loops.length
    for (const loop of loops) void loop.then(() => onTheWay--)
    return {
      /** How many sessions come to be seen before the last loop has been refused. By the id of the role: its name is gone with it. */
      async left(): Promise<number> {
        let left: number
        do left = (await superuser`select from pg_stat_activity where usesysid = ${oid}`).length
        while (left === 0 && onTheWay > 0)
        return left
      },
      async stop(): Promise<void> {
        over = true
        await superuser`select pg_terminate_backend(pid) from pg_stat_activity where usesysid = ${oid}`
        await Promise.all(loops)
      },
    }
  }

  /** Whether a login is refused for good: closed, or gone. Whoever was only cut comes back. */
  const refusalOf = (error: unknown): boolean => ['28000', '28P01'].includes((error as { code?: string }).code ?? '')

  const superuser = () => vault.database.superuser

  /** A client that says whom it comes as, and not a word when it is asked for the password. Ready when it is asked. */
  async function knock(username: string): Promise<Socket> {
    const { hostname, port } = new URL(vault.database.url)
    const socket = connect(Number(port), hostname)
    const text = Buffer.from(`user\0${username}\0database\0ledger\0\0`)
    const head = Buffer.alloc(8)
    head.writeInt32BE(head.length + text.length, 0)
    head.writeInt16BE(3, 4)
    socket.write(Buffer.concat([head, text]))
    await once(socket, 'data')
    return socket
  }

  /**
   * Sessions that are being opened: of clients that were let in, which hold the lock of their database, and of those before that. Seen twice, for those of
   * Postgres itself are through at once.
   *
   * @returns their processes
   */
  async function opened(wanted: { readonly in: number; readonly before: number }): Promise<number[]> {
    const look = () => superuser()<{ pid: number; in: boolean }[]>`
      select pid, exists (select from pg_locks where pid = opening.pid and classid = 'pg_database'::regclass and mode = 'RowExclusiveLock') as in
      from (select pid from pg_locks where locktype = 'virtualxid'
        except select pid from pg_stat_activity where usesysid is not null or backend_type <> 'client backend') as opening order by pid`
    return await vi.waitFor(
      async () => {
        const [once, again] = [await look(), await look()]
        expect(again).toEqual(once)
        const isIn = once.filter((one) => one.in).length
        expect({ in: isIn, before: once.length - isIn }).toEqual(wanted)
        return once.map(({ pid }) => pid)
      },
      { timeout: 20_000 },
    )
  }

  /** Those of these processes that Postgres still has. */
  async function alive(pids: readonly number[]): Promise<number[]> {
    const held = await superuser()<
      { pid: number }[]
    >`select distinct pid from pg_locks where locktype = 'virtualxid' and pid in ${superuser()([...pids])}`
    return pids.filter((pid) => held.some((one) => one.pid === pid))
  }

  /** In the database `postgres` of the same cluster. */
  async function elsewhere(login: Minted, statement: string): Promise<void> {
    const client = connectAs(Object.assign(new URL(vault.database.url), { pathname: '/postgres' }).href, login)
    await client.unsafe(statement)
    await client.end()
  }

  /** With no more rights than Vault's login has. @returns what it prints */
  async function sweep(): Promise<string> {
    const steps = ['-c', 'set session authorization mayfly_vault', '-f', path.join(deployed, 'sweep.sql')]
    const { stdout } = await run('psql', ['-X', '-v', 'ON_ERROR_STOP=1', '-d', vault.database.url, ...steps])
    return stdout
  }

  test('the sweep drops logins that were lost, with their sessions, and leaves alone who lives and who is not ours', async () => {
    const { superuser } = vault.database
    const [living, lost] = [await mint(), await mint()]
    const sessions = [await vault.database.login(living.username, living.password), await vault.database.login(lost.username, lost.password)] as const
    await sessions[1].query('select lo_create(0)')
    await superuser.unsafe(`
      alter role "${lost.username}" valid until '2020-01-01';
      create role "mf-token-lease-closed-AAAAAAAA" nologin valid until '2999-01-01';
      create role "mf-token-lease-justover-AAAAAAAA" login;
      create role "somebody" login valid until '2020-01-01';
      create role "mf-operators" nologin`)
    await superuser.unsafe(
      `do $$ begin execute format('alter role "mf-token-lease-justover-AAAAAAAA" valid until %L', now() - interval '30 s'); end $$`,
    )

    const told = await sweep()

    expect(told).toMatch(new RegExp(`${lost.username} .* dropped`))
    expect(told).toMatch(/mf-token-lease-closed-AAAAAAAA .* dropped/)
    const left = await superuser<{ rolname: string }[]>`select rolname from pg_roles where rolname ~ '^(mf-|somebody)' order by 1`
    expect(left.map(({ rolname }) => rolname).toSorted()).toEqual(
      [living.username, 'mf-operators', 'mf-token-lease-justover-AAAAAAAA', 'somebody'].toSorted(),
    )
    expect([await sessions[0].alive(), await sessions[1].alive()]).toEqual([true, false])

    await Promise.all(sessions.map((session) => session.close()))
    await superuser.unsafe('drop role somebody, "mf-operators", "mf-token-lease-justover-AAAAAAAA"')
    await Promise.all([revoke(living), revoke(lost)])
    expect(await vault.database.logins()).toEqual([])
  })

  test('the sweep ends a session whose role is gone, and no other', async () => {
    const { superuser } = vault.database
    const [gone, living] = [await mint(), await mint()]
    const [left, stays] = [await vault.database.login(gone.username, gone.password), await vault.database.login(living.username, living.password)]
    await superuser.unsafe(`drop role "${gone.username}"`)
    expect(await left.alive()).toBe(true)
    await sweep()
    expect([await left.alive(), await stays.alive()]).toEqual([false, true])
    await Promise.all([left.close(), stays.close()])
    await Promise.all([revoke(gone), revoke(living)])
  })

  test("no function of others is called with the rights of Vault's login, or of whoever sweeps, though it fits better than Postgres' own", async () => {
    await superuser().unsafe(`
      create function public.pg_terminate_backend(integer, integer) returns boolean language plpgsql as $$ begin raise 'called as %', current_user; end $$;
      create function public.format(text, name) returns text language plpgsql as $$ begin raise 'called as %', current_user; end $$;
      create function public.format(text, text) returns text language plpgsql as $$ begin raise 'called as %', current_user; end $$`)
    try {
      const [ended, lost] = [await mint(), await mint()]
      const sessions = [await vault.database.login(ended.username, ended.password), await vault.database.login(lost.username, lost.password)]
      await superuser().unsafe(`alter role "${lost.username}" valid until '2020-01-01'`)
      expect(await sweep()).toMatch(new RegExp(`${lost.username} .* dropped`))
      await revoke(ended)
      expect(await Promise.all(sessions.map((session) => session.alive()))).toEqual([false, false])
      for (const session of sessions) await session.close()
      expect(await vault.setUp()).toContain('database role ledger-read')
      await revoke(lost)
    } finally {
      await superuser().unsafe('drop function public.pg_terminate_backend(integer, integer), public.format(text, name), public.format(text, text)')
    }
  })

  test('setup.sh, applied once more, changes nothing: no password, no token, no role', async () => {
    const before = await state()
    const told = await vault.setUp()
    expect(await state()).toEqual(before)
    expect(told).toMatch(/database ledger: keeps its password[^]*the broker's token: as it was/)
    expect(told).not.toContain(broker)
    await revoke(await mint())
    expect((await stat(vault.tokenFile)).mode & 0o777).toBe(0o600)
  })

  test('setup.sh speaks with the same server where there is `vault` alone, which knows nothing of BAO_ADDR', async () => {
    const folder = await mkdtemp(path.join(vault.folder, 'programs-'))
    const program = `#!/bin/sh\nunset BAO_ADDR BAO_TOKEN\nexec ${openbao!} "$@"\n`
    await writeFile(path.join(folder, 'vault'), program, { mode: 0o755 })
    const without = process.env['PATH']!.split(path.delimiter).filter((place) => !existsSync(path.join(place, 'bao')))
    const before = await state()
    expect(await vault.setUp({ PATH: [folder, ...without].join(path.delimiter) })).toMatch(/database ledger: keeps its password/)
    expect(await state()).toEqual(before)
  })

  test('setup.sh, from a copy whose names were changed as docs/vault.md says, sets up those and no others', async () => {
    const page = await readFile(path.join(deployed, '../../docs/vault.md'), 'utf8')
    const [, commands] = /^ +\$ cp -r deploy\/vault ours && cd ours\n([^]+?)^ +```$/m.exec(page)!
    // A login of its own: with the one that is there already this database's would get another password.
    const renaming = `${commands!.replaceAll(/^ +\$ /gm, '')}sed -i.old 's/mayfly_vault/orders_vault/g' postgres.sql database-config.json`
    const folder = await mkdtemp(path.join(vault.folder, 'ours-'))
    await cp(deployed, folder, { recursive: true })
    await run('sh', ['-ec', renaming], { cwd: folder })

    const told = await vault.setUp({ DATABASE_CONNECTION: 'orders', DATABASE_ROLE: 'orders-read' }, folder)

    expect(told.trimEnd().split('\n')).toEqual([
      'policy mayfly-broker',
      'policy mayfly-task-orders-read',
      'token role mayfly-task',
      'database orders: a new password',
      'database connection orders',
      'database role orders-read',
      "the broker's token: as it was",
    ])
    const minted = await mint('orders-read')
    const session = await vault.database.login(minted.username, minted.password)
    expect(await session.query('select pg_has_role(current_user, $$orders_read$$, $$member$$) as member from bookings limit 1')).toMatchObject([
      { member: true },
    ])
    await revoke(minted)
    expect(await session.alive()).toBe(false)
    await session.close()
  })

  /** Accessors of all tokens but those of tasks, which end by themselves at any moment. */
  async function lastingTokens(): Promise<readonly string[]> {
    const { keys } = (await vault.root<{ keys: readonly string[] }>('GET', 'auth/token/accessors?list=true')).body.data
    const looks = await Promise.all(
      keys.map((accessor) => vault.root<{ creation_ttl: number } | undefined>('POST', 'auth/token/lookup-accessor', { accessor })),
    )
    return keys.filter((_, at) => (looks[at]!.body.data?.creation_ttl ?? 45) !== 45).toSorted()
  }

  async function state(): Promise<unknown> {
    const paths = [
      'auth/token/roles/mayfly-task',
      'database/config/ledger',
      'database/roles/ledger-read',
      'sys/policies/acl/mayfly-broker',
      'sys/policies/acl/mayfly-task-ledger-read',
      'sys/policies/acl?list=true',
    ]
    const { superuser } = vault.database
    return {
      // A policy that is written again has another version and the same text.
      openbao: await Promise.all(paths.map(async (at) => ({ ...(await vault.root('GET', at)).body.data, version: 0, modified: '' }))),
      tokens: await lastingTokens(),
      token: await readFile(vault.tokenFile, 'utf8'),
      roles: [...(await superuser`select * from pg_authid order by rolname`)],
      members: [...(await superuser`select * from pg_auth_members order by roleid, member`)],
      rights: [...(await superuser`select relname, relacl::text from pg_class where relacl is not null order by 1`)],
    }
  }

  test("Vault's login makes logins and ends their sessions, and is no superuser, no member of the group and no reader of its tables", async () => {
    const { superuser } = vault.database
    const [login] =
      await superuser`select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles where rolname = 'mayfly_vault'`
    expect(login).toEqual({ rolsuper: false, rolcreaterole: true, rolcreatedb: false, rolreplication: false, rolbypassrls: false })
    const [rights] =
      await superuser`select has_table_privilege('mayfly_vault', 'bookings', 'select') as reads, pg_has_role('mayfly_vault', 'ledger_read', 'usage') as member`
    expect(rights).toEqual({ reads: false, member: false })
  })
})
