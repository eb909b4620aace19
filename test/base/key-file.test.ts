import { chown, mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { openKeyFile } from '../../src/base/key-file.ts'

/** A 0700 folder of this user. */
async function folder(): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'mayfly-keys-'))
  onTestFinished(() => rm(made, { recursive: true }))
  return made
}

const isRoot = process.geteuid?.() === 0

test('a folder of keys that belongs to another user is refused before a key is made in it', async () => {
  const keys = await folder()
  // Only root can give a folder away; for anybody else this process is taken to be somebody else.
  if (isRoot) await chown(keys, 65_534, 65_534)
  else vi.spyOn(process, 'geteuid').mockReturnValue(65_534)
  onTestFinished(() => void vi.restoreAllMocks())
  const { uid } = await stat(keys)
  const self = process.geteuid!()
  await expect(openKeyFile(path.join(keys, 'digest.key'), 32)).rejects.toThrow(
    `keys: ${keys} is open to others: it is user ${uid}'s; chown it to ${self}`,
  )
  expect(await readdir(keys)).toEqual([])
})

test('a folder of keys that is its own, or one of root, is used', async () => {
  const keys = await folder()
  expect(await openKeyFile(path.join(keys, 'digest.key'), 32)).toHaveLength(32)
  if (!isRoot) return
  vi.spyOn(process, 'geteuid').mockReturnValue(65_534)
  onTestFinished(() => void vi.restoreAllMocks())
  expect(await openKeyFile(path.join(keys, 'log.key'), 32)).toHaveLength(32)
})
