import { randomUUID } from 'node:crypto'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import type { HeldLease } from '../../client/client.ts'

/** A folder (0700) of files (0600) for the processes of this user. */
export interface PrivateFolder {
  readonly folder: string
  /** Puts a file there or in the place of an old one: whoever reads meanwhile sees the old file or the new one, never half of one. */
  write(name: string, text: string): Promise<void>
  pathOf(name: string): string
  remove(): Promise<void>
}

/** A private folder in which a command finds the credentials of its task: `GRANT.json`, and `GRANT.token` for bearer tokens. */
export interface CredentialFiles extends PrivateFolder {
  /** Puts a fresh credential in the place of the old one. */
  replace(lease: HeldLease): Promise<void>
}

/** @param runtimeFolder XDG_RUNTIME_DIR: in memory and this user's alone, where there is one */
export async function makePrivateFolder(runtimeFolder: string | undefined): Promise<PrivateFolder> {
  const folder = await freshFolder(runtimeFolder)
  return {
    folder,
    async write(name, text) {
      const half = join(folder, `.${randomUUID()}`)
      await writeFile(half, text, { mode: 0o600, flag: 'wx' })
      await rename(half, join(folder, name))
    },
    pathOf: (name) => join(folder, name),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

/** @param runtimeFolder as above */
export async function writeCredentials(leases: readonly HeldLease[], runtimeFolder: string | undefined): Promise<CredentialFiles> {
  const folder = await makePrivateFolder(runtimeFolder)
  const names = namesOf(leases)
  const files: CredentialFiles = {
    ...folder,
    async replace({ id, credential }) {
      const view = credential.reveal()
      const name = names.get(id)
      if (name === undefined) throw new Error(`${id} is not a lease of this task`)
      await folder.write(`${name}.json`, `${JSON.stringify(view)}\n`)
      if (view.type === 'bearer_token') await folder.write(`${name}.token`, view.token)
    },
  }
  try {
    for (const lease of leases) await files.replace(lease)
    return files
  } catch (error) {
    await files.remove()
    throw error
  }
}

/** The name of each lease's files: its grant, and for a second lease of the same grant `GRANT-2`. By lease id. */
export function namesOf(leases: readonly Pick<HeldLease, 'id' | 'grant'>[]): ReadonlyMap<string, string> {
  // Grants keep their own names, so that a second `a` never takes the place of a grant that is called `a-2`.
  const taken = new Set<string>()
  const own = new Set(leases.map(({ grant }) => grant))
  const names = new Map<string, string>()
  for (const { id, grant } of leases) {
    let name = grant
    for (let count = 2; taken.has(name) || (name !== grant && own.has(name)); count++) name = `${grant}-${count}`
    taken.add(name)
    // The catalogue allows only letters that are themselves here; an answer is not trusted to.
    names.set(id, encodeURIComponent(name))
  }
  return names
}

async function freshFolder(runtimeFolder: string | undefined): Promise<string> {
  // The XDG base directory specification: a relative path is to be ignored.
  if (runtimeFolder !== undefined && isAbsolute(runtimeFolder)) {
    try {
      return await mkdtemp(join(runtimeFolder, 'mayfly-'))
    } catch {
      // Set, but not there or not ours, as after `su`: the next best place will do.
    }
  }
  return mkdtemp(join(tmpdir(), 'mayfly-'))
}
