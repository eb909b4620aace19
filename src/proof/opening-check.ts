import type { Checkpoint } from './checkpoint.ts'
import type { Fault } from './fault.ts'
import type { LogLine } from './lines.ts'
import type { LogPart } from './log-part.ts'
import { openingKind, parseOpening } from './opening.ts'

/**
 * Whether the first entry of a log names the one before it as that has ended here. Where it does, the final checkpoint that it names proves that one to its end.
 *
 * @param open reads a checkpoint that a trusted key has signed, and tells what is wrong with one that it cannot
 */
export function checkOpening(
  { number, entry, missing }: LogLine,
  closed: LogPart,
  part: LogPart,
  open: (note: string, what: string, number: number) => Checkpoint | undefined,
  fault: (fault: Fault) => void,
): void {
  const say = (message: string): void => fault({ number, id: entry?.id ?? missing, message })
  const opening = entry?.kind === openingKind ? parseOpening(entry.body) : undefined
  if (!opening) return say(`is the first of ${part.origin}, and does not open it`)
  if (opening.origin !== part.origin || opening.closed.origin !== closed.origin)
    return say(`opens ${opening.origin} behind ${opening.closed.origin}, where ${part.origin} begins behind ${closed.origin}`)
  const { size, root, checkpoint: note } = opening.closed
  const final = closed.hasKey ? open(note, 'names as the final checkpoint of the log before it what', number) : undefined
  if (final && (final.origin !== closed.origin || final.size !== size || final.root.toString('base64') !== root))
    return say('contradicts itself: the final checkpoint is not what it says of it')
  // Told already.
  if (closed.isBroken()) return
  const here = closed.head()
  if (size > here.size) return say(`goes on from ${size} entries of ${closed.origin}, of which ${here.size} are here: its tail was cut`)
  if (size < here.size) return say(`goes on from ${size} entries of ${closed.origin}, of which ${here.size} are here: a fork at the seam`)
  if (here.root.toString('base64') !== root) return say(`goes on from another end of ${closed.origin} than is here: a fork at the seam`)
  if (final) closed.compare(final, 'its final checkpoint')
}
