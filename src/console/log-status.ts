import { html } from 'hono/html'
import type { Ledger } from '../ledger/connect.ts'
import { latestCheckpoint, type LogPlace, type SignedHead, signedEntries } from '../ledger/checkpoints.ts'
import { type Lag, lookAtLog } from '../ledger/look.ts'
import { longestWait } from '../ledger/sequencer.ts'
import { type LogRefusal, refusals } from '../ledger/signing.ts'
import type { Html } from './page.ts'
import { renderTime } from './words.ts'

/** Where the log stands into which the history is signed. */
export interface LogStatus {
  /** Undefined: nothing was signed yet. */
  readonly checkpoint: (SignedHead & { readonly signedAt: Date }) | undefined
  readonly lag: Lag
  /** Why it is not signed any further: as the sequencer of this broker found, or as the store itself shows. */
  readonly refusal: LogRefusal | undefined
}

/** @param refused what the sequencer of this broker has against the log */
export async function readLogStatus(ledger: Ledger, refused: LogRefusal | undefined): Promise<LogStatus> {
  const [checkpoint, { last, lag }] = await Promise.all([latestCheckpoint(ledger), lookAtLog(ledger, 0)])
  const seen = last === 'gone' ? 'lost entry' : last === 'in the future' ? 'older transactions' : undefined
  return { checkpoint, lag, refusal: refused ?? seen }
}

/** A line where all is well, and an alarm where it is not. Signed is not verified: that is for whoever does not trust this broker to do. */
export function renderLogStatus({ checkpoint, lag, refusal }: LogStatus): Html {
  const signed = checkpoint
    ? html`Log: ${entriesOf(signedEntries(checkpoint))} signed${closed(checkpoint.log)}, the last checkpoint ${renderTime(checkpoint.signedAt)};
      ${waiting(lag)}.`
    : html`Log: nothing was signed yet; ${waiting(lag)}.`
  if (refusal !== undefined)
    return html`<div role="alert" class="alarm">
      <p><strong class="stuck">The log is not signed any further.</strong> ${sentence(refusals[refusal])}.</p>
      <p>${signed}</p>
    </div>`
  if (lag.seconds > longestWait)
    return html`<div role="alert" class="alarm">
      <p><strong class="stuck">The log is behind the history.</strong> ${signed}</p>
    </div>`
  if (lag.strays.length > 0)
    return html`<div role="alert" class="alarm">
      <p>
        <strong class="stuck">Entries were written where the log had been already.</strong> No broker does that, and they never get a place:
        ${lag.strays.join(', ')}.
      </p>
      <p>${signed}</p>
    </div>`
  return html`<p class="quiet">${signed}</p>`
}

/** Which of several logs is open. */
const closed = ({ number, first }: LogPlace): string =>
  number === 1
    ? ''
    : ` (log ${number}, from entry ${first.toLocaleString('en')} on; ${number === 2 ? 'the one' : 'those'} before it ${number === 2 ? 'is' : 'are'} closed)`

const entriesOf = (number: number): string => `${number.toLocaleString('en')} ${number === 1 ? 'entry' : 'entries'}`

const waiting = ({ entries, seconds }: Lag): string =>
  entries === 0 ? 'nothing waits' : `${entriesOf(entries)} ${entries === 1 ? 'waits' : 'wait'}, the oldest for ${seconds.toFixed(1)} s`

const sentence = (text: string): string => text.slice(0, 1).toUpperCase() + text.slice(1)
