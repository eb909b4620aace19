import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { mayfly, type Ran } from './program.ts'

const preload = path.join(import.meta.dirname, 'loaded-modules.mjs')

/** Runs the built command, and looks at which modules it and what it ran had loaded when they ended. @returns their files */
export async function modulesOf(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Ran & { readonly modules: string[] }> {
  let ran: Ran | undefined
  const modules = await loadedBy(async (noting) => {
    ran = await mayfly(args, { ...environment, ...noting })
  })
  return { ...ran!, modules }
}

/** The files of the modules that programs had loaded when they ended. @param run runs them to their end, with this in their environment */
export async function loadedBy(run: (environment: Readonly<Record<string, string>>) => Promise<void>): Promise<string[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-modules-'))
  try {
    const file = path.join(folder, 'loaded')
    await run({ NODE_OPTIONS: `--import=${preload}`, LOADED_MODULES: file })
    const files = (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '')
    return [...new Set(files)]
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Those that are the SDK of AWS, or come with it. */
export const awsModules = (modules: readonly string[]): string[] => modules.filter((file) => /\/node_modules\/@(aws-sdk|smithy)\//.test(file))

/** Those of this program, by their path in src without the ending, such as `cli/serve`. */
export const ownModules = (modules: readonly string[]): string[] =>
  modules.flatMap((file) => /\/dist\/(.+)\.js$/.exec(file.replace(/.*\/node_modules\/.*/, ''))?.[1] ?? [])

/** The libraries that they belong to. */
export const librariesOf = (modules: readonly string[]): string[] => [
  ...new Set(modules.flatMap((file) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? [])),
]
