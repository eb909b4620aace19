import { TypeID, typeid } from 'typeid-js'

export type TaskId = `task_${string}`
export type LeaseId = `lease_${string}`
export type DecisionId = `dec_${string}`
export type EntryId = `ent_${string}`
export type RevocationId = `rev_${string}`
export type StopId = `stop_${string}`

/** The nouns that have ids, by their prefix. TypeIDs carry their noun and sort by time (https://github.com/jetify-com/typeid, UUIDv7). */
interface Ids {
  task: TaskId
  lease: LeaseId
  dec: DecisionId
  ent: EntryId
  rev: RevocationId
  stop: StopId
}

/** A new id of this noun. */
export function newId<Noun extends keyof Ids>(noun: Noun): Ids[Noun] {
  return typeid(noun).toString() as Ids[Noun]
}

/** Whether the text is a well-formed id of this noun. It says nothing about whether such a thing exists. */
export function isId<Noun extends keyof Ids>(noun: Noun, text: string): text is Ids[Noun] {
  try {
    TypeID.fromString(text, noun)
    return true
  } catch {
    // The library has no test that does not throw; a malformed id is an ordinary answer here.
    return false
  }
}

/** Crockford's base 32, in which a TypeID is written. */
const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'

/**
 * The lower bound, in sort order, of the ids of this noun made at `at` or later: a UUIDv7 begins with 48 bits of time, which are the first
 * ten characters of a TypeID. @param at milliseconds since 1970
 */
export function idFrom(noun: keyof Ids, at: number): string {
  let left = Math.min(Math.max(0, Math.floor(at)), 2 ** 48 - 1)
  let time = ''
  for (let place = 0; place < 10; place++) {
    time = alphabet[left % 32]! + time
    left = Math.floor(left / 32)
  }
  return `${noun}_${time}`
}

/** When an id was made, by its maker's clock: the reverse of `idFrom`. Milliseconds since 1970. */
export function madeAt(id: string): number {
  let time = 0
  for (const character of id.slice(id.indexOf('_') + 1, id.indexOf('_') + 11)) time = time * 32 + Math.max(0, alphabet.indexOf(character))
  return time
}
