import { randomUUID } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import postgres from 'postgres'
import { inject } from 'vitest'
import type { StoreSettings } from '../../src/ledger/connect.ts'

/** A store of its own for one test file. */
export interface OpenedStore {
  readonly settings: StoreSettings
  dispose(): Promise<void>
}

/** Both stores, for `describe.each`: every repository and journey test runs on each. */
export const stores: readonly { readonly name: string; open(): Promise<OpenedStore> }[] = [
  { name: 'the embedded store', open: openEmbedded },
  ...(inject('postgresUrl') === null ? [] : [{ name: 'Postgres', open: openDatabase }]),
]

export async function openEmbedded(): Promise<OpenedStore> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-store-'))
  const embedded = path.join(folder, 'store')
  await cp(inject('embeddedTemplate'), embedded, { recursive: true, preserveTimestamps: true })
  return { settings: { embedded }, dispose: () => rm(folder, { recursive: true, force: true }) }
}

/** An empty database of the run's cluster. */
export async function openDatabase(): Promise<OpenedStore> {
  const cluster = inject('postgresUrl')
  if (cluster === null) throw new Error('there is no Postgres')
  const name = `mayfly_${randomUUID().replaceAll('-', '')}`
  await onCluster(cluster, `create database ${name}`)
  const url = new URL(cluster)
  url.pathname = `/${name}`
  return { settings: { url: url.href }, dispose: () => onCluster(cluster, `drop database ${name} with (force)`) }
}

/** What a version that is to come leaves in a store. */
export const oneMoreMigration = "insert into mayfly_schema.__drizzle_migrations (hash, created_at) values ('next', 9999999999999)"

/** Runs a statement in a database of the cluster as its owner. */
export const onDatabase = (settings: StoreSettings, statement: string): Promise<void> => onCluster((settings as { url: string }).url, statement)

async function onCluster(url: string, statement: string): Promise<void> {
  const client = postgres(url, { max: 1, onnotice: () => {} })
  await client.unsafe(statement)
  await client.end()
}
