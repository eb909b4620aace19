import { createHash, randomBytes } from 'node:crypto'
import { isSameSecret } from '../base/equal.ts'
import { isId, type TaskId } from '../base/ids.ts'
import { Secret } from '../base/secret.ts'
import type { Broker, Caller, TokenHolder } from './task.ts'
import { findTaskToken } from '../ledger/tokens.ts'

/** `mft_`, the id of the task without its noun, `_`, and 256 random bits. */
const shape = /^mft_([0-9a-z]{26})_[\w-]{43}$/

/** Whether the text claims to be a task token. By its beginning, not by trying: what claims to be one is never taken for anything else. */
export const isTaskToken = (text: string): boolean => text.startsWith('mft_')

/** A token that speaks for this task, and what the ledger keeps of it. */
export function newTaskToken(task: TaskId): { readonly token: Secret; readonly hash: string } {
  const text = `mft_${task.slice('task_'.length)}_${randomBytes(32).toString('base64url')}`
  return { token: new Secret(text), hash: hashOf(text) }
}

/**
 * The task that a token speaks for, ended ones too, since completing is accepted late.
 *
 * The id in it finds the row, the hash decides, and is compared in constant time. The store would find it by its hash too, in an index of random keys:
 * beside a long past every task that is opened would touch, and after a checkpoint log, a page of that index for itself alone.
 */
export async function taskOfToken(broker: Broker, text: string): Promise<Caller['task']> {
  const id = taskIn(text)
  const kept = id && (await findTaskToken(broker.ledger, id))
  return kept && isSameSecret(kept.hash, hashOf(text)) ? { id, agent: kept.agent, tokenHash: kept.hash } : undefined
}

/** Whether the token that was presented still speaks for its task: a retry of the declaration brings another. */
export const stillSpeaks = async (broker: Broker, { id, tokenHash }: TokenHolder): Promise<boolean> =>
  (await findTaskToken(broker.ledger, id))?.hash === tokenHash

/** The task that a token names, which says nothing about whether it speaks for it. Nothing that is malformed becomes a question to the store. */
function taskIn(text: string): TaskId | undefined {
  const id = `task_${shape.exec(text)?.[1] ?? ''}`
  return isId('task', id) ? id : undefined
}

/** SHA-256, base64url. 256 random bits need no salt and no stretching. */
const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64url')
