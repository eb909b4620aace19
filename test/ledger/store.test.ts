import { chmod, mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { openFolder } from '../../src/ledger/embedded.ts'
import { migrate } from '../../src/ledger/migrations.ts'
import { migratePostgres } from '../../src/ledger/postgres.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { sweep } from '../../src/ledger/queue.ts'
import { spendToken } from '../../src/ledger/tokens.ts'
import { isId } from '../../src/base/ids.ts'
import { onDatabase, oneMoreMigration, openDatabase, type OpenedStore, openEmbedded, stores } from '../support/stores.ts'

describe.each(stores)('the ledger on $name', ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger

  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
    for (let entry = 0; entry < 5; entry++) await archivePolicySet(ledger, `sha256:${entry}`, { entry })
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  test.each([
    "update entries set kind = 'nothing'",
    'delete from entries',
    'truncate entries',
    "update decisions set outcome = 'permit'",
    'delete from decisions',
    "update policy_sets set document = '{}'",
    'delete from policy_sets',
    'delete from tasks',
    'delete from leases',
    'drop table entries',
    'alter table entries disable trigger all',
    'create table elsewhere (id int)',
  ])('the application cannot %s', async (statement) => {
    await expect(ledger.run(sql.raw(statement))).rejects.toMatchObject({
      code: 'internal',
      cause: { message: expect.stringMatching(/^42501/) as unknown },
    })
  })

  test('an error of the store carries neither its query nor its parameters', async () => {
    const secret = 'a-parameter-that-may-be-secret'
    const error = (await ledger.run(sql`select ${secret}::int`).catch((thrown: unknown) => thrown)) as Error
    expect(error).toMatchObject({ code: 'internal', detail: 'The ledger refused an unlawful change' })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('select')
  })

  test('entries have TypeIDs that sort as they were written', async () => {
    const { items } = await listEntries(ledger, { kind: 'policy.activated' }, { limit: 10 })
    expect(items.map(({ body }) => (body as { policy_digest: string }).policy_digest)).toEqual([4, 3, 2, 1, 0].map((entry) => `sha256:${entry}`))
    for (const { id } of items) expect(isId('ent', id)).toBe(true)
  })

  test('a page between two times has the entries of that time, the first moment in and the last one out', async () => {
    const { items } = await listEntries(ledger, {}, { limit: 100 })
    for (const { at } of items) {
      const within = items.filter((entry) => entry.at.getTime() === at.getTime()).map(({ id }) => id)
      const next = new Date(at.getTime() + 1)
      expect((await listEntries(ledger, { from: at, to: next }, { limit: 100 })).items.map(({ id }) => id)).toEqual(within)
      expect((await listEntries(ledger, { to: at }, { limit: 100 })).items).toEqual(items.filter((entry) => entry.at < at))
      expect((await listEntries(ledger, { from: next }, { limit: 100 })).items).toEqual(items.filter((entry) => entry.at > at))
    }
    expect((await listEntries(ledger, { from: new Date(0), to: new Date('9999-12-31T23:59:59Z') }, { limit: 100 })).items).toEqual(items)
  })

  test('pages follow each other without a gap or a repetition', async () => {
    const whole = await listEntries(ledger, {}, { limit: 100 })
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await listEntries(ledger, {}, { limit: 2, ...(cursor !== undefined && { cursor }) })
      seen.push(...page.items.map(({ id }) => id))
      cursor = page.next ?? undefined
    } while (cursor !== undefined)
    expect(seen).toEqual(whole.items.map(({ id }) => id))
  })

  test('a token is spent exactly once by many who present it at once', async () => {
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => spendToken(ledger, 'token', new Date(Date.now() + 60_000))))
    expect(outcomes.filter(Boolean)).toHaveLength(1)
  })

  test('a spent token is remembered past its end, for a broker whose clock is behind, and then forgotten', async () => {
    const ended = (minutes: number) => new Date(Date.now() - minutes * 60_000)
    await spendToken(ledger, 'lately', ended(5))
    await spendToken(ledger, 'long ago', ended(61))

    expect(await sweep(ledger, 10)).toBe(1)

    expect(await spendToken(ledger, 'lately', ended(5))).toBe(false)
    expect(await spendToken(ledger, 'long ago', ended(61))).toBe(true)
  })

  test('a policy set whose digest the archive has for another is not put in force', async () => {
    // As whoever has the application's login puts it there before.
    await ledger.run(sql`insert into policy_sets (digest, document) values ('sha256:taken', '{"n": 1}')`)
    await expect(archivePolicySet(ledger, 'sha256:taken', { n: 2 })).rejects.toMatchObject({
      code: 'conflict',
      detail: expect.stringContaining('The archive has another policy set under sha256:taken') as unknown,
    })
    const [newest] = (await listEntries(ledger, { kind: 'policy.activated' }, { limit: 1 })).items
    expect(newest?.body).toEqual({ policy_digest: 'sha256:4' })
  })

  test('a policy set is put in force by every broker that has it, also at once', async () => {
    await Promise.all(Array.from({ length: 8 }, () => archivePolicySet(ledger, 'sha256:shared', { b: 1, a: [true] })))
    const { items } = await listEntries(ledger, { kind: 'policy.activated' }, { limit: 9 })
    expect(items.filter(({ body }) => (body as { policy_digest: string }).policy_digest === 'sha256:shared')).toHaveLength(8)
  })

  test('is closed twice without harm, and refuses statements afterwards', async () => {
    const other = await open()
    const closing = await connect(other.settings)
    await closing.close()
    await closing.close()
    await expect(closing.run(sql`select 1`)).rejects.toMatchObject({ code: 'store_unavailable' })
    await other.dispose()
  })
})

describe('the embedded store', () => {
  test('cannot be opened twice, and can be again once it is closed', async () => {
    const { settings, dispose } = await openEmbedded()
    const first = await connect(settings)
    await expect(connect(settings)).rejects.toThrow(/in use by another broker/)
    await first.close()
    await (await connect(settings)).close()
    await dispose()
  })

  test('keeps its folder to itself, and refuses one that is open to others', async () => {
    const { settings, dispose } = await openEmbedded()
    const folder = (settings as { embedded: string }).embedded
    await (await connect(settings)).close()
    for (const part of [folder, path.join(folder, 'postgres')]) expect((await stat(part)).mode & 0o077).toBe(0)
    await chmod(folder, 0o750)
    await expect(connect(settings)).rejects.toThrow(/open to others \(mode 750\)/)
    await dispose()
  })

  test('says what is wrong when its folder is a file or cannot be made', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-place-'))
    await expect(connect({ embedded: '/dev/null/store' })).rejects.toThrow(/store\.embedded: .*cannot be used/)
    await mkdir(path.join(folder, 'fine'), { mode: 0o700 })
    await rm(folder, { recursive: true })
  })

  test('cleans up after itself while it is used, and nobody has to wait for it', async () => {
    const { settings, dispose } = await openEmbedded()
    const door = await openFolder((settings as { embedded: string }).embedded, 20)
    const vacuumed = async (): Promise<boolean> => {
      const [row] = await door.query(`select reltuples >= 0 as done, current_user as role from pg_class where relname = 'entries'`, [])
      expect(row?.['role']).toBe('mayfly_app')
      return row?.['done'] === true
    }
    // A query of PGlite ends without the event loop coming round, so its timers have to be let in.
    while (!(await vacuumed())) await new Promise((resolve) => setImmediate(resolve))
    await door.close()
    await dispose()
  })

  test('that a newer version has migrated says so when it is opened', async () => {
    const { settings, dispose } = await openEmbedded()
    const before = await connect(settings)
    expect(before.isNewer).toBe(false)
    await before.run(sql`reset role`)
    await before.run(sql.raw(oneMoreMigration))
    await before.close()
    const after = await connect(settings)
    expect(after.isNewer).toBe(true)
    await after.close()
    await dispose()
  })

  test('that cannot be migrated is refused in words of the house, and with what was wrong', async () => {
    const { settings, dispose } = await openEmbedded()
    const before = await connect(settings)
    await before.run(sql`reset role`)
    await before.run(sql.raw('delete from mayfly_schema.__drizzle_migrations'))
    await before.close()
    await expect(connect(settings)).rejects.toMatchObject({
      code: 'store_unavailable',
      detail: 'The embedded ledger cannot be opened',
      cause: { message: expect.stringContaining('already exists') as unknown },
    })
    await dispose()
  })

  test('keeps what was acknowledged over a restart', async () => {
    const { settings, dispose } = await openEmbedded()
    const before = await connect(settings)
    await archivePolicySet(before, 'sha256:kept', {})
    await before.close()
    await using after = await connect(settings)
    const { items } = await listEntries(after, {}, { limit: 1 })
    expect(items).toMatchObject([{ kind: 'policy.activated', body: { policy_digest: 'sha256:kept' } }])
    await after.close()
    await dispose()
  })
})

describe('a managed Postgres, whose owner is no superuser', () => {
  test('is migrated by an owner that may create roles, who can step down to the role of the application', async () => {
    // Postgres 18, where whoever creates a role does not become it by that.
    await using database = await PGlite.create()
    await database.exec(`create role owner login createrole; grant create on schema public to owner`)
    await database.exec(
      `grant create on database ${(await database.query<{ name: string }>('select current_database() as name')).rows[0]!.name} to owner`,
    )
    await database.exec('set session authorization owner')

    await migrate(async (text) => (await database.exec(text))[0]?.rows ?? [])

    await database.exec('set role mayfly_app')
    await expect(database.exec('delete from entries')).rejects.toThrow('permission denied')
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('Postgres', () => {
  test('whose lock of migrations somebody keeps is refused at start with that', async () => {
    const { settings, dispose } = await openDatabase()
    const { url } = settings as { url: string }
    await migratePostgres(url)
    const other = postgres(url, { max: 1, onnotice: () => {} })
    await other`select pg_advisory_lock(74200001)`

    await expect(migratePostgres(url, 100)).rejects.toMatchObject({
      code: 'store_unavailable',
      detail: expect.stringContaining('advisory lock 74200001') as unknown,
    })

    await other.end()
    await migratePostgres(url)
    await dispose()
  })

  test('is migrated once by four brokers that start together', async () => {
    const { settings, dispose } = await openDatabase()
    const ledgers = await Promise.all(Array.from({ length: 4 }, () => connect(settings)))
    for (const ledger of ledgers) await ledger.close()
    await dispose()
  })

  test('that a newer version has migrated says so when it is opened', async () => {
    const { settings, dispose } = await openDatabase()
    const before = await connect(settings)
    expect(before.isNewer).toBe(false)
    await before.close()
    await onDatabase(settings, oneMoreMigration)
    const after = await connect(settings)
    expect(after.isNewer).toBe(true)
    await after.close()
    await dispose()
  })

  test('refuses the owner too to change history', async () => {
    const { settings, dispose } = await openDatabase()
    const ledger = await connect(settings)
    await archivePolicySet(ledger, 'sha256:owned', {})
    const owner = postgres((settings as { url: string }).url, { max: 1 })
    for (const statement of ["update entries set kind = 'x'", 'delete from entries', 'truncate entries']) {
      await expect(owner.unsafe(statement)).rejects.toThrow('entries is append-only')
    }
    await owner.end()
    await ledger.close()
    await dispose()
  })

  /** A database of a schema that is up to date, met by a ledger of two connections while it can only be read. */
  async function openReadOnly(): Promise<{ ledger: Ledger; canBeWritten(): Promise<void>; dispose(): Promise<void> }> {
    const { settings, dispose } = await openDatabase()
    const { url } = settings as { url: string }
    await (await connect(settings)).close()
    const owner = postgres(url, { max: 1 })
    const alter = async (what: string): Promise<void> => void (await owner.unsafe(`alter database ${new URL(url).pathname.slice(1)} ${what}`))
    await alter('set default_transaction_read_only = on')
    const ledger = await connect({ url, pool: 2 })
    return {
      ledger,
      canBeWritten: () => alter('reset default_transaction_read_only'),
      async dispose() {
        await owner.end()
        await ledger.close()
        await dispose()
      },
    }
  }

  test('that could only be read is written by the first statement after, on connections that were opened before', async () => {
    const { ledger, canBeWritten, dispose } = await openReadOnly()
    const look = () => ledger.run<{ read_only: string }>(sql`select current_setting('transaction_read_only') as read_only`)
    expect((await Promise.all([look(), look()])).flat()).toEqual([{ read_only: 'on' }, { read_only: 'on' }])

    await canBeWritten()
    await Promise.all([1, 2, 3, 4].map((entry) => archivePolicySet(ledger, `sha256:${entry}`, {})))
    expect(ledger.failures()).toBe(0)
    expect((await listEntries(ledger, {}, { limit: 10 })).items).toHaveLength(4)
    expect((await Promise.all([look(), look()])).flat()).toEqual([{ read_only: 'off' }, { read_only: 'off' }])

    await dispose()
  })

  test('that can only be read refuses what writes, again and again, and answers what reads', async () => {
    const { ledger, dispose } = await openReadOnly()
    for (let attempt = 1; attempt <= 3; attempt++) {
      await expect(archivePolicySet(ledger, 'sha256:refused', {})).rejects.toMatchObject({
        code: 'store_unavailable',
        cause: { message: expect.stringMatching(/^25006/) as unknown },
      })
      expect(ledger.failures()).toBe(attempt)
      expect((await listEntries(ledger, {}, { limit: 10 })).items).toEqual([])
    }
    await dispose()
  })

  test.each([
    ['off', 'on'],
    ['on', 'on'],
    ['remote_apply', 'remote_apply'],
  ])(
    'is asked at the isolation that statements expect, and loses no commit, whatever is set for the login: synchronous_commit %s',
    async (set, held) => {
      const { settings, dispose } = await openDatabase()
      const url = new URL((settings as { url: string }).url)
      await (await connect(settings)).close()
      const [database, login] = [url.pathname.slice(1), `login_of_${url.pathname.slice(1)}`]
      for (const statement of [
        `create role ${login} login in role mayfly_app`,
        `alter role ${login} in database ${database} set default_transaction_isolation = 'repeatable read'`,
        `alter role ${login} in database ${database} set synchronous_commit = '${set}'`,
      ])
        await onDatabase(settings, statement)
      url.username = login

      const ledger = await connect({ url: url.href })
      expect(
        await ledger.run(sql`select current_setting('transaction_isolation') as isolation, current_setting('synchronous_commit') as commits`),
      ).toEqual([{ isolation: 'read committed', commits: held }])

      await ledger.close()
      await dispose()
      await onDatabase({ url: inject('postgresUrl')! }, `drop role ${login}`)
    },
  )

  test('that cannot be reached is refused at start with a reason and without its address', async () => {
    const refused: unknown = await connect({ url: 'postgres://user:hunter2@127.0.0.1:1/none' }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ code: 'store_unavailable' })
    expect(String((refused as Error).stack)).not.toContain('hunter2')
  })
})
