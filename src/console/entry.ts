import { html } from 'hono/html'
import type { EntryId } from '../base/ids.ts'
import type { Ledger } from '../ledger/connect.ts'
import { readEntry } from '../ledger/entries.ts'
import type { Placeless } from '../ledger/look.ts'
import { placeless, proveEntry } from '../ledger/proofs.ts'
import { parseCheckpoint } from '../proof/checkpoint.ts'
import { type EntryFields, leafHashOf } from '../proof/leaf.ts'
import { verifyInclusion } from '../proof/merkle.ts'
import type { EntryProof } from '../proof/entry-proof.ts'
import type { Html } from './page.ts'

/** An entry with what proves that it is in the signed log, or why nothing does. */
export interface Proven {
  readonly entry: EntryFields
  readonly proof: EntryProof | Placeless
}

/** Undefined: there is no such entry. @throws BrokerError `internal` where the store has lost a part of the log */
export async function readProven(ledger: Ledger, id: EntryId): Promise<Proven | undefined> {
  const [entry, proof] = await Promise.all([readEntry(ledger, id), proveEntry(ledger, id)])
  return entry && proof && { entry, proof }
}

/** One fact of the history, all that is kept of it, and its proof. */
export function renderEntry(home: string, { entry, proof }: Proven): Html {
  const { id, at, kind, agent, task, lease, decision, xid, body } = entry
  return html`<h1><code>${kind}</code></h1>
    <dl class="facts">
      <dt>Entry</dt>
      <dd class="id">${id}</dd>
      <dt>When</dt>
      <dd><time datetime="${at}">${at.slice(0, 23).replace('T', ' ')}</time> UTC</dd>
      ${agent === undefined ? '' : named('Agent', agent)}${task === undefined ? '' : named('Task', html`<a class="id" href="${home}/tasks/${task}">${task}</a>`)}
      ${lease === undefined ? '' : named('Lease', html`<span class="id">${lease}</span>`)}
      ${decision === undefined ? '' : named('Decision', html`<a class="id" href="${home}/decisions/${decision}">${decision}</a>`)}
      ${named('Transaction', html`<span class="id">${xid}</span>`)}
    </dl>
    <h2>What was kept</h2>
    <pre tabindex="0" role="region" aria-label="Body of the entry">${JSON.stringify(body, null, 2)}</pre>
    <h2>In the signed log</h2>
    ${typeof proof === 'string' ? html`<p${proof === 'stray' ? html` class="stuck"` : ''}>${placeless[proof]}.</p>` : renderProof(home, entry, proof)}`
}

const named = (name: string, value: Html | string): Html =>
  html`<dt>${name}</dt>
    <dd>${value}</dd>`

/** Checked with what the store has at this moment: an entry that was changed behind the log is seen here, and who trusts nobody here checks for themselves. */
function renderProof(home: string, entry: EntryFields, { index, path, note }: EntryProof): Html {
  const [leaf, head] = [leafHashOf(entry), parseCheckpoint(note.slice(0, note.lastIndexOf('\n\n') + 1))]
  const isProven = leaf !== undefined && head !== undefined && verifyInclusion(index, leaf, path, head)
  return html`<p>
      ${isProven ? html`<span class="state alive">It comes to the root that was signed</span>` : html`<span class="state stuck">It is not what was signed: it was changed</span>`}
    </p>
    <dl class="facts">
      ${named('Place', `${index.toLocaleString('en')}, of ${head?.size.toLocaleString('en') ?? '?'}`)}
      ${named('Leaf hash', html`<span class="id">${leaf?.toString('base64') ?? 'none'}</span>`)}
    </dl>
    <p class="quiet">
      This broker says so. To know it without trusting this broker, <a href="${home}/entries/${entry.id}/proof" download>download the proof</a>, and
      check it with the log's key.
    </p>`
}
