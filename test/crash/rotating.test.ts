import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf, openLogKey } from '../../src/ledger/log-key.ts'
import { readLogLines } from '../../src/ledger/log-lines.ts'
import { latestCheckpoint, listLogs } from '../../src/ledger/checkpoints.ts'
import { stepLog } from '../../src/ledger/signing.ts'
import type { VerifierKey } from '../../src/proof/note.ts'
import { verifyLedger } from '../../src/proof/verify.ts'
import { auditLog, growAll, settled, verifiersOf, writeEntries } from '../support/log.ts'
import { makeSite, type Ran, type Site, startMayfly } from '../support/program.ts'
import { isLook } from '../support/statements.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { createTripwire, type Crossing, type Tripwire, type Wire, wirePostgres } from '../support/tripwire.ts'

const hook = pathToFileURL(path.join(import.meta.dirname, '../support/dying-at-files.mjs')).href

const commit = 'append to the log'

/** What a rotation changes, in order: it makes the next key, closes the one log and opens the other, and puts the key in the place of the one before it. */
const changes = ['writeFile log.next.key.draft', 'link log.next.key', 'unlink log.next.key.draft', commit, 'link log.N.key', 'rename log.key']
const crossings = changes.flatMap((what) => (['before', 'after'] as const).map((side) => ({ side, what, nth: 1 })))

/** Before a file is changed all is as it was after what came before it. */
const cells = crossings.filter(({ side, what }) => side === 'after' || what === changes[0] || what === commit)

/** Whether the next key is in its place already. */
const isThrough = ({ side, what }: Crossing): boolean => side === 'after' && what === changes.at(-1)

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('the rotation of the key of the log that is killed', () => {
  let store: OpenedStore
  let ledger: Ledger
  let site: Site
  let tripwire: Tripwire
  let wire: Wire
  let entries = 0

  beforeAll(async () => {
    store = await openDatabase()
    ledger = await connect(store.settings)
    tripwire = createTripwire()
    wire = await wirePostgres((store.settings as { url: string }).url, tripwire)
    site = await makeSite({ store: { url: wire.url } })
  })
  afterAll(async () => {
    await wire.stop()
    await site.remove()
    await ledger.close()
    await store.dispose()
  })

  const keys = () => path.join(site.folder, 'keys')

  /** What a broker signs with that has just started. */
  const log = async () => ({ ledger, key: await openLogKey(keys()), origin: 'broker.example.com' })

  async function write(): Promise<void> {
    await writeEntries(ledger, 3)
    entries += 3
  }

  async function rotate(where?: Crossing): Promise<Ran> {
    const environment = { NODE_OPTIONS: `--import=${hook}`, ...(where && { DIES_AT_FILE: `${where.side} ${where.what}` }) }
    tripwire.arm(() => rotation.process.kill('SIGKILL'), where)
    const rotation = startMayfly(['ledger', 'rotate-key', '--config', site.config()], environment)
    const ran = await rotation.ended
    tripwire.disarm()
    return ran
  }

  /** Of each log the verifier key of what signed it: a key in the folder, by whatever name. */
  async function verifiersLeft(): Promise<readonly VerifierKey[]> {
    const seeds = (await readdir(keys())).filter((name) => name.startsWith('log.')).map((name) => readFile(path.join(keys(), name)))
    const left = (await Promise.all(seeds)).map((seed) => logKeyOf(seed))
    return await Promise.all(
      (await listLogs(ledger)).map(async ({ origin, key }) => {
        const signers = await Promise.all(left.map((one) => one.signerFor(origin)))
        const found = signers.find((signer) => signer?.key.text === key)
        expect(found, `the key of ${origin} is there`).toBeDefined()
        return found!.key
      }),
    )
  }

  /** Whatever must hold at any moment: all can be read and verified, goes on from what a reviewer has pinned, and every key is for its owner alone. */
  async function check(keysLeft: readonly VerifierKey[], since?: string): Promise<void> {
    expect(await auditLog(ledger, keysLeft)).toEqual([])
    const logs = (await listLogs(ledger)).map(({ origin, log: { first } }) => ({ origin, first }))
    const verification = verifyLedger({ keys: keysLeft, checkpoint: (await latestCheckpoint(ledger))!.note, logs, since })
    for (const line of await readLogLines(ledger, 0, 1_000)) verification.line(line)
    const verdict = verification.finish()
    expect(verdict).toMatchObject({ found: 0, faults: [] })
    expect(verdict.logs.map(({ proven }) => proven)).toEqual((await listLogs(ledger)).map(({ size }) => size))
    for (const name of await readdir(keys())) expect([name, (await stat(path.join(keys(), name))).mode & 0o777]).toEqual([name, 0o600])
  }

  test('crosses exactly what the matrix kills it at', async () => {
    await write()
    await growAll(await log())
    const { status, stderr } = await rotate()
    const ofFiles = crossings.filter(({ what }) => what !== commit).map(({ side, what }) => `${side} ${what}`)
    expect([status, stderr.split('\n').filter(Boolean)]).toEqual([0, ofFiles])
    expect(tripwire.seen().filter((what) => what === commit || !isLook(what))).toEqual([commit])
    entries += 1
    await check(await verifiersOf(ledger, site.folder))
  })

  test.each(cells.map((where) => [`${where.side} ${where.what}`, where] as const))(
    '%s loses nothing, forks nothing, and is done by whoever does it again',
    async (_, where) => {
      await write()
      await growAll(await log())
      const [before, pinned] = [await listLogs(ledger), (await latestCheckpoint(ledger))!.note]

      expect((await rotate(where)).status, 'it was killed').toBeNull()

      const isClosed = (await listLogs(ledger)).length > before.length
      expect((await listLogs(ledger)).slice(0, before.length)).toEqual(before.map((each) => ({ ...each, closed: each.closed || isClosed })))
      await check(await verifiersLeft(), pinned)
      await write()
      await settled(ledger)
      // A broker that starts at this moment signs the open log, or none.
      const step = await stepLog(await log(), { head: undefined })
      expect(step.outcome === 'refused' ? step.why : step.outcome).toBe(isClosed && !isThrough(where) ? 'closed log' : 'appended')
      await check(await verifiersLeft(), pinned)

      const again = await rotate()
      expect(again.status, again.stderr).toBe(0)
      await growAll(await log())
      const after = await listLogs(ledger)
      expect(after.length - before.length, 'what was done before it was killed is done anew').toBe(isThrough(where) ? 2 : 1)
      entries += after.length - before.length
      const [kept] = await ledger.run<{ places: number; entries: number }>(
        sql`select (select count(*)::int from leaves) as places, (select count(*)::int from entries) as entries`,
      )
      expect(kept).toEqual({ places: entries, entries })
      expect((await readdir(keys())).filter((name) => name.startsWith('log.next.key'))).toEqual([])
      await check(await verifiersOf(ledger, site.folder), pinned)
    },
  )
})
