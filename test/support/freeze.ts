import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** Stops a process where it stands (SIGSTOP). When this returns it runs no more: what then arrives for it waits in its sockets. */
export function freeze({ pid }: ChildProcess): void {
  process.kill(pid!, 'SIGSTOP')
  // The kernel stops each thread at its next chance, which is a moment later. `T` is what Linux calls a process that has stopped.
  while (!/\) [Tt] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')));
}

/** Lets it go on as if nothing had happened. */
export function thaw({ pid }: ChildProcess): void {
  process.kill(pid!, 'SIGCONT')
}
