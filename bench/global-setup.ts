import type { TestProject } from 'vitest/node'
import { setUp } from '../test/support/global-setup.ts'

/** The same as for tests, with a Postgres that waits for the disk: without it a commit costs next to nothing, and nobody runs one like that. */
export default (project: TestProject) => setUp(project, { durable: true })
