import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { mayfly, type Ran } from './program.ts'

const preload = path.join(import.meta.dirname, 'loaded-modules.mjs')

/** Runs the built command, and looks at which CommonJS modules it and what it ran had loaded when they ended. @returns their files */
export async function modulesOf(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Ran & { readonly modules: string[] }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-modules-'))
  try {
    const file = path.join(folder, 'loaded')
    const ran = await mayfly(args, { ...environment, NODE_OPTIONS: `--import=${preload}`, LOADED_MODULES: file })
    return { ...ran, modules: (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '') }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Those that are the SDK of AWS, or come with it. */
export const awsModules = (modules: readonly string[]): string[] => modules.filter((file) => /\/node_modules\/@(aws-sdk|smithy)\//.test(file))
