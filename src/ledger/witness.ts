import { cosignedAt, type WitnessKey } from '../proof/cosignature.ts'
import { checkpointIn } from '../proof/checkpoint.ts'
import type { Hash } from '../proof/merkle.ts'
import { fromDecimal } from '../proof/spelling.ts'

/** What proves that a checkpoint goes on from the log as it was at `from` entries, which is at least 1. Undefined: it does not, or there is no such log. */
export type ProveGrowth = (checkpoint: { readonly origin: string; readonly size: number }, from: number) => Promise<readonly Hash[] | undefined>

/** Sends a text to the witness. @throws Error where no answer came */
export type Submit = (body: string) => Promise<{ readonly status: number; readonly text: string }>

/** Shows checkpoints to a witness. */
export interface Witness {
  /**
   * The note with the witness's cosignature, which was verified. A witness that stood elsewhere than was thought is asked twice.
   *
   * @throws Error that says why there is none, for operators: also where the log is not what the witness has seen of it. The caller tries again.
   */
  cosign(note: string, submit: Submit): Promise<string>
}

/**
 * Speaks to a witness (C2SP tlog-witness, "add-checkpoint"): it is shown each checkpoint with the proof that it contains the last that it has seen, and
 * cosigns one history only. How far it has seen is its own affair; what is remembered of it here saves a request.
 */
export function createWitness(key: WitnessKey, prove: ProveGrowth): Witness {
  let seen = { origin: '', size: 0 }

  async function show(note: string, { origin, size }: { origin: string; size: number }, from: number, submit: Submit) {
    if (from > size) throw new Error(`the witness has seen ${from} entries of the log, and this checkpoint has ${size}`)
    const proof = from === 0 ? [] : await prove({ origin, size }, from)
    if (!proof) throw new Error(`the log of the store has no proof from the ${from} entries that the witness has seen`)
    return await submit([`old ${from}`, ...proof.map((hash) => hash.toString('base64')), '', note].join('\n'))
  }

  return {
    async cosign(note, submit) {
      const checkpoint = checkpointIn(note)
      if (!checkpoint) throw new Error('what was to be cosigned is no checkpoint')
      const { origin, size } = checkpoint
      let answer = await show(note, checkpoint, seen.origin === origin ? seen.size : 0, submit)
      if (answer.status === 409) {
        const from = fromDecimal(answer.text.trim())
        if (from === undefined) throw new Error('the witness does not say how much of the log it has seen')
        seen = { origin, size: from }
        answer = await show(note, checkpoint, from, submit)
      }
      if (answer.status !== 200) throw new Error(refusalOf(answer.status))
      const cosigned = note + linesOf(key, answer.text)
      if (cosignedAt(cosigned, key) === undefined) throw new Error('what the witness answered is no cosignature of its key')
      seen = { origin, size }
      return cosigned
    },
  }
}

/** Only of this key's name: of others nothing is known, and what is no signature would make the note unreadable. */
const linesOf = ({ name }: WitnessKey, text: string): string =>
  text
    .split('\n')
    .filter((line) => line.startsWith(`— ${name} `))
    .slice(0, mostLines)
    .map((line) => `${line}\n`)
    .join('')

/** A witness has a key of each type at most. */
const mostLines = 4

/** In the words of C2SP tlog-witness. */
const refusalOf = (status: number): string =>
  ({
    403: 'the witness knows another key of the log',
    404: 'the witness does not know the log',
    409: 'the witness was shown another checkpoint meanwhile',
    422: 'the witness has seen another history of the log, and does not cosign this one',
  })[status] ?? `the answer was ${status}`
