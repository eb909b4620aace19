import { randomBytes } from 'node:crypto'
import { cp } from 'node:fs/promises'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import { connect } from '../../src/ledger/connect.ts'
import { archivePolicySet } from '../../src/ledger/entries.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { type Disk, mayMount, mountDisk } from '../support/disk.ts'

const mebibyte = 1024 * 1024

describe.runIf(mayMount())('an embedded store on a small disk', () => {
  let disk: Disk
  let embedded: string

  beforeEach(async () => {
    disk = mountDisk(150)
    embedded = path.join(disk.folder, 'store')
    await cp(inject('embeddedTemplate'), embedded, { recursive: true, preserveTimestamps: true })
  })
  afterEach(() => disk.unmount())

  test('whose log cannot grow starts anew from its log when there is room, with all that was acknowledged', { timeout: 60_000 }, async () => {
    const ledger = await connect({ embedded })
    disk.fill(20 * mebibyte)
    const acknowledged: string[] = []
    const keep = async () => {
      const digest = `sha256:${acknowledged.length}`
      await archivePolicySet(ledger, digest, { noise: randomBytes(15_000).toString('base64') })
      acknowledged.push(digest)
    }
    const fault = async (work: Promise<unknown>) => work.catch((error: unknown) => error)

    let refused: unknown
    while (refused === undefined) refused = await fault(keep())
    expect(refused).toMatchObject({ code: 'store_unavailable', cause: { message: expect.stringContaining('pg_wal') as unknown } })
    expect(await fault(keep()), 'it does not wait for what cannot come').toMatchObject({ code: 'store_unavailable' })

    disk.makeRoom()
    await keep()
    const { items } = await listEntries(ledger, {}, { limit: 2_000 })
    const kept = new Set(items.map(({ body }) => (body as { policy_digest: string }).policy_digest))
    expect(acknowledged.filter((digest) => !kept.has(digest))).toEqual([])
    await ledger.close()
  })
})
