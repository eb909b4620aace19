import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, rmdirSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** A small disk of its own, in memory. */
export interface Disk {
  readonly folder: string
  /** Fills it to the last byte, then gives `left` bytes back. */
  fill(left?: number): void
  makeRoom(): void
  readOnly(): void
  /** Takes it away, whoever still uses it. */
  unmount(): void
}

const mebibyte = 1024 * 1024

/** @param size mebibytes */
export function mountDisk(size: number): Disk {
  const folder = mkdtempSync(path.join(tmpdir(), 'mayfly-disk-'))
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  try {
    run('mount', '-t', 'tmpfs', '-o', `size=${size}m,mode=0700`, 'tmpfs', folder)
  } catch (error) {
    rmdirSync(folder)
    throw error
  }
  const filler = path.join(folder, 'filler')
  return {
    folder,
    fill(left = 0) {
      const file = openSync(filler, 'a')
      try {
        for (const chunk = Buffer.alloc(mebibyte / 16); ;) writeSync(file, chunk)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
        ftruncateSync(file, Math.max(0, fstatSync(file).size - left))
      } finally {
        closeSync(file)
      }
    },
    makeRoom: () => unlinkSync(filler),
    readOnly: () => void run('mount', '-o', 'remount,ro', folder),
    unmount() {
      run('umount', '-l', folder)
      rmdirSync(folder)
    },
  }
}

/** Whether this process may mount. Where it may not, tests on small disks are left out, but not in CI. */
export function mayMount(): boolean {
  try {
    mountDisk(1).unmount()
    return true
  } catch (error) {
    if (process.env['CI'] !== undefined) throw error
    process.stderr.write(`tests on a small disk are left out: mounting one needs root (${String(error).split('\n')[0]})\n`)
    return false
  }
}
