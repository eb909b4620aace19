import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setFlagsFromString } from 'node:v8'
import type { TestProject } from 'vitest/node'
import { openFolder } from '../../src/ledger/embedded.ts'
import { startPostgres } from './postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A cluster of this run, or null where there is no Postgres. */
    postgresUrl: string | null
    /** A folder with a migrated embedded store, to be copied: making one takes seconds. */
    embeddedTemplate: string
  }
}

export default (project: TestProject) => setUp(project, {})

/** @returns what takes it down again */
export async function setUp(project: TestProject, options: { readonly durable?: boolean }): Promise<() => Promise<void>> {
  // The same flag as the workers have (vitest.config.ts), for the store that is opened here.
  setFlagsFromString('--no-turbo-inline-js-wasm-calls')
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-template-'))
  const template = path.join(folder, 'store')
  const [postgres] = await Promise.all([startPostgres(options), openFolder(template).then((door) => door.close())])
  project.provide('postgresUrl', postgres?.url ?? null)
  project.provide('embeddedTemplate', template)
  return async () => {
    await postgres?.stop()
    await rm(folder, { recursive: true, force: true })
  }
}
