import { type FileHandle, lstat, open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createOnce, openPrivate, privateFolder, syncFolder } from '../../base/key-file.ts'
import { parseJson } from '../../base/json.ts'
import { unlessMissing } from '../../base/missing.ts'
import type { Clock } from '../../base/time.ts'
import { type Ring, ringShape } from './ring.ts'

/** Milliseconds after which a rotation that did not finish is taken to have died. It writes one small file. */
const staleAfter = 60_000
/** Bytes: 256 keys of 350 each, and room. */
const largest = 131_072

/** A key ring on disk, shared by brokers: read by all, replaced by one at a time, never seen half written. */
export interface KeyFile {
  /** @throws Error that says what is wrong with the file, and nothing that stands in it */
  read(): Promise<Ring>
  /** A mark that changes with the file. */
  version(): Promise<string>
  /** Writes the first ring, unless another broker was faster. */
  create(ring: () => Promise<Ring>): Promise<void>
  /**
   * Replaces the ring by what `next` makes of it; nothing happens where it makes nothing of it, where another broker is at it, or where the
   * file cannot be written: then rotation is somebody else's job.
   */
  replace(next: (current: Ring) => Promise<Ring | undefined>): Promise<void>
}

export function keyFile(path: string, clock: Clock): KeyFile {
  const draft = `${path}.next`
  const file: KeyFile = {
    async read() {
      await privateFolder(dirname(path))
      await using handle = await openPrivate(path)
      if ((await handle.stat()).size > largest) throw new Error(`${path} is too large to be a key ring`)
      const text = await handle.readFile('utf8')
      try {
        return ringShape.parse(parseJson(text))
      } catch {
        // Without the cause: whatever stands there may be a key.
        throw new Error(`${path} is not a key ring`)
      }
    },

    async version() {
      const { ino, size, mtimeNs } = await lstat(path, { bigint: true })
      return `${ino}:${size}:${mtimeNs}`
    },

    async create(ring) {
      await privateFolder(dirname(path))
      await createOnce(path, async () => textOf(await ring()))
    },

    async replace(next) {
      if (!(await writable(path))) return
      // The draft is the lock: only one broker can create it, and renaming it publishes the ring and frees the lock in one step.
      const handle = await openDraft(draft, clock())
      if (!handle) return
      await using held = handle
      try {
        const ring = await next(await file.read())
        if (ring) {
          await held.writeFile(textOf(ring))
          await held.sync()
          if (await isStill(draft, held)) await rename(draft, path)
          await syncFolder(path)
        }
      } finally {
        // Gone already where it was published. Not ours to remove where another broker took it for stale meanwhile.
        if (await isStill(draft, held)) await unlink(draft)
      }
    },
  }
  return file
}

/** The draft, created by us and by nobody else; undefined where another broker holds it or the folder cannot be written. */
async function openDraft(draft: string, now: number): Promise<FileHandle | undefined> {
  try {
    const handle = await open(draft, 'wx', 0o600)
    await handle.utimes(now / 1_000, now / 1_000)
    return handle
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') await breakStale(draft, now)
    else if (code !== 'EROFS' && code !== 'EACCES' && code !== 'EPERM') throw error
    // Even after a stale draft was removed: the next look, a minute on, starts afresh.
    return undefined
  }
}

/** Removes the draft of a broker that died while it rotated. */
async function breakStale(draft: string, now: number): Promise<void> {
  const found = await lstat(draft).catch(unlessMissing)
  if (found && now - found.mtimeMs > staleAfter) await unlink(draft).catch(unlessMissing)
}

const textOf = (ring: Ring): string => `${JSON.stringify(ring, null, 2)}\n`

async function isStill(path: string, handle: FileHandle): Promise<boolean> {
  const found = await lstat(path).catch(unlessMissing)
  return found?.ino === (await handle.stat()).ino
}

/** By its mode and not by trying: root may write anything, and a ring that was made read-only is meant to be. */
const writable = async (path: string): Promise<boolean> => ((await lstat(path)).mode & 0o200) !== 0
