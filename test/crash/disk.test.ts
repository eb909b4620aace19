import { randomBytes } from 'node:crypto'
import { cp } from 'node:fs/promises'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import type { LeaseId } from '../../src/base/ids.ts'
import { connect } from '../../src/ledger/connect.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { findLease } from '../../src/ledger/records.ts'
import { audit } from '../support/audit.ts'
import { type Disk, mayMount, mountDisk } from '../support/disk.ts'
import { startLab } from '../support/lab.ts'
import { makeSite, mayfly } from '../support/program.ts'
import { declarationOf, type Held } from './held.ts'

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

  test('that is full issues nothing and says so, and ends what it has to when there is room', async () => {
    const lab = await startLab()
    const site = await makeSite({ store: { embedded }, lab: lab.url })
    const broker = await site.start()
    const bot = await site.token('agent:bot')
    const post = async (where: string, body: object) => {
      const headers = { authorization: `Bearer ${bot}`, 'content-type': 'application/json', prefer: 'wait=30' }
      const answer = await fetch(broker.url + where, { method: 'POST', headers, body: JSON.stringify(body) })
      return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
    }
    const readiness = async () => {
      const answer = await fetch(`${broker.url}/readyz`)
      return { status: answer.status, body: await answer.json() }
    }
    const tasks: Held[] = []
    const declare = async () => {
      const answer = await post('/tasks', declarationOf(['api', 'crm']))
      if (answer.status === 201) tasks.push(answer.body as unknown as Held)
      return answer
    }
    const aliveOfThose = async (which: boolean) =>
      (await lab.alive()).filter(({ task }) => tasks.some((held) => held.task.id === task) === which).map(({ lease }) => lease)
    expect((await declare()).status).toBe(201)

    disk.fill()
    let refused = await declare()
    // What was allocated before is used up first.
    while (refused.status === 201) refused = await declare()

    expect(refused).toMatchObject({ status: 503, body: { code: 'store_unavailable', retry: 'later' } })
    expect(await readiness()).toMatchObject({ status: 503, body: { status: 'not_ready', store: 'failing' } })
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200)
    const complete = ({ task }: Held) => post(`/tasks/${task.id}/complete`, {})
    let unended = await complete(tasks[0]!)
    for (const task of tasks.slice(1)) if (unended.status === 200) unended = await complete(task)
    expect(unended).toMatchObject({ status: 503, body: { code: 'store_unavailable', retry: 'later' } })

    disk.makeRoom()
    expect((await readiness()).status).toBe(200)
    expect((await declare()).status).toBe(201)
    for (const task of tasks) expect(await complete(task)).toMatchObject({ status: 200, body: { ended: true } })
    expect(await aliveOfThose(true)).toEqual([])

    expect(await broker.stop()).toBe(0)
    const ledger = await connect({ embedded })
    const secrets = tasks.flatMap(({ task_token, leases }) => [task_token, ...leases.map(({ credential }) => credential.token)])
    expect(await audit(ledger, secrets)).toEqual([])
    // The one that was refused may have been minted already: then it is the reaper's.
    for (const lease of await aliveOfThose(false)) expect(await findLease(ledger, lease as LeaseId)).toMatchObject({ lease: { state: 'reserved' } })
    await ledger.run(sql`update leases set due_at = now() where state = 'reserved'`)
    await ledger.close()
    const next = await site.start()
    while ((await lab.alive()).length > 0);
    expect(await next.stop()).toBe(0)
    const after = await connect({ embedded })
    expect(await audit(after, secrets)).toEqual([])
    await after.close()
    for (const secret of secrets) expect(broker.log() + next.log()).not.toContain(secret)
    await Promise.all([lab.stop(), site.remove()])
  })

  test('whose log cannot grow starts anew from its log when there is room, with all that was acknowledged', async () => {
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

  test('that is full keeps a broker from starting, which says so, and no longer once there is room', async () => {
    for (const [folder, left] of [
      [embedded, 0],
      [path.join(disk.folder, 'another'), 20 * mebibyte],
    ] as const) {
      const site = await makeSite({ store: { embedded: folder } })
      disk.fill(left)
      const ran = await mayfly(['serve', '--config', site.config()])
      expect(ran.status).toBe(1)
      expect(ran.stderr).toContain('less than 32 MiB left: make room')
      disk.makeRoom()
      await site.remove()
    }
    const site = await makeSite({ store: { embedded } })
    const broker = await site.start()
    expect(await broker.stop()).toBe(0)
    await site.remove()
  })

  test('that is read-only is refused at the start, by name', async () => {
    const site = await makeSite({ store: { embedded } })
    disk.readOnly()
    const ran = await mayfly(['serve', '--config', site.config()])
    expect(ran.status).toBe(1)
    expect(ran.stderr).toContain(`store.embedded: ${embedded} cannot be used: EROFS`)
    await site.remove()
  })
})
