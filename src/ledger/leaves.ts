import { forgetOldest } from '../base/forget-oldest.ts'
import type { Receipt } from '../base/receipt.ts'
import { leafHashOf } from '../proof/leaf.ts'
import type { Ledger } from './connect.ts'
import { readEntries } from './entries.ts'
import type { Leaf } from './append.ts'

/** Leaves that are remembered at most: seconds of a busy broker's history, and some 3 MB. The oldest make way: another broker has signed them by then. */
const mostRemembered = 10_000

/** Entries of one statement: bounds what is held of their bodies, and to hash them takes some 10 ms of the thread that answers agents. */
const most = 500

const leavesTold = new WeakMap<Ledger, Map<string, Receipt['leafHash']>>()

/**
 * Remembers what entries come to that this broker has just written, until its sequencer gives them their place a second later.
 *
 * The log then commits to what was answered: an entry that somebody changes in the store meanwhile is found to be altered, as it would be later. And never
 * more than a shortcut: what is not here, because another broker wrote it, or this one has started again, is made of what the history has.
 */
export function rememberLeaves(ledger: Ledger, receipts: readonly Receipt[]): void {
  const told = leavesTold.get(ledger) ?? new Map<string, Receipt['leafHash']>()
  leavesTold.set(ledger, told)
  for (const { entry, leafHash } of receipts) told.set(entry, leafHash)
  forgetOldest(told, mostRemembered)
}

/** The leaves of these entries, in their order; what is remembered of them is forgotten. Undefined where one has no canonical form and so can be no leaf, or is gone. */
export async function leavesOf(ledger: Ledger, entries: readonly string[]): Promise<readonly Leaf[] | undefined> {
  const told = leavesTold.get(ledger)
  const hashes = new Map<string, Leaf['hash'] | undefined>()
  for (const entry of entries) {
    const hash = told?.get(entry)
    if (hash !== undefined) hashes.set(entry, Buffer.from(hash, 'base64'))
    told?.delete(entry)
  }
  const others = entries.filter((entry) => !hashes.has(entry))
  for (let at = 0; at < others.length; at += most) {
    for (const fields of await readEntries(ledger, others.slice(at, at + most))) hashes.set(fields.id, leafHashOf(fields))
  }
  const leaves = entries.map((entry) => ({ entry, hash: hashes.get(entry) }))
  return leaves.every((leaf): leaf is Leaf => leaf.hash !== undefined) ? leaves : undefined
}
