import { html } from 'hono/html'
import type { LeaseId } from '../base/ids.ts'
import { fieldIn, type Json, textIn, textsIn } from '../base/json.ts'
import type { Entry, Lease } from '../ledger/records.ts'
import { type EntryKind, isEntryKind } from '../proof/entry-kinds.ts'
import type { Html } from './page.ts'
import { type Mood, renderNames } from './words.ts'

/** An entry of the history in a sentence, and whether it is a beginning, an end, or trouble. */
interface Told {
  readonly mood?: Mood
  readonly text: Html
}

/** Entries as sentences on a line, in the order in which they are given; a day is said where it begins. */
export const renderTimeline = (home: string, entries: readonly Entry[], leases: ReadonlyMap<LeaseId, Pick<Lease, 'grant'>>): Html =>
  html`<ol class="timeline">
    ${entries.map((entry, index) => {
      const { mood, text } = tell(home, entry, grantOf(entry, leases))
      const day = dayOf(entry)
      return html`${index === 0 || day !== dayOf(entries[index - 1]!) ? html`<li class="day">${day}, UTC</li>` : ''}
        <li class="${mood ?? ''}">
          <time datetime="${entry.at.toISOString()}">${entry.at.toISOString().slice(11, 23)}</time>
          <div>${text}</div>
        </li>`
    })}
  </ol>`

const dayOf = ({ at }: Entry): string => at.toISOString().slice(0, 10)

/** The grant of the lease that an entry is about; the end of its id where only other entries name the grant. */
export function grantOf({ leaseId, body }: Entry, leases: ReadonlyMap<LeaseId, Pick<Lease, 'grant'>> = new Map()): string {
  return textIn(body, 'grant') || (leaseId ? (leases.get(leaseId)?.grant ?? `lease …${leaseId.slice(-6)}`) : '')
}

/** What a sentence is made of. */
interface About {
  readonly home: string
  readonly entry: Entry
  /** Of the lease that it is about. */
  readonly grant: string
  /** A text of the body; empty where there is none. */
  readonly say: (name: string) => string
  /** Cause, who, and the reason that they gave, as far as the body has them. */
  readonly why: Html
}

/** @param grant of the lease that it is about */
export function tell(home: string, entry: Entry, grant: string): Told {
  const { kind, body } = entry
  if (!isEntryKind(kind)) return { text: html`${kind}` }
  const say = (name: string): string => textIn(body, name)
  const why = html`${say('cause') ? ` (${say('cause').replaceAll('_', ' ')})` : ''}${say('by') ? html` by <code>${say('by')}</code>` : ''}${
    say('reason') ? html`: <span class="said">${say('reason')}</span>` : ''
  }`
  return sentences[kind]({ home, entry, grant, say, why })
}

/** One for each kind of entry: a kind that is added does not compile until it stands here. */
const sentences: Readonly<Record<EntryKind, (about: About) => Told>> = {
  'task.opened': ({ entry }) => ({ mood: 'alive', text: html`Declared by ${entry.agent}` }),
  'task.denied': ({ why }) => ({ mood: 'stuck', text: html`Refused${why}` }),
  'task.closing': ({ why }) => ({ mood: 'ending', text: html`Closing${why}` }),
  'task.ended': ({ say }) => ({ mood: 'ended', text: html`Ended: ${say('state')}` }),
  'task.renewed': ({ say }) => ({ text: html`Renewed until ${say('deadline')}` }),
  'task.reissued': () => ({ text: html`Its answer was lost: a new task token was made` }),
  'decision.made': tellDecision,
  'lease.reserved': ({ grant, say }) => ({ text: html`Announced ${grant}, to be minted by ${say('provider')}` }),
  'lease.issued': ({ grant, say }) => ({ mood: 'alive', text: html`Minted ${grant}${until(say('expires_at'))}` }),
  'lease.refreshing': ({ grant, say }) => ({ text: html`Asking for a fresh credential of ${grant}${until(say('expires_at'))}` }),
  'lease.not_refreshed': ({ grant, say }) => ({ text: html`No fresh credential of ${grant}: ${say('error')}` }),
  'lease.refreshed': ({ grant, say }) => ({ text: html`Refreshed ${grant}${until(say('expires_at'))}` }),
  'lease.revoking': ({ grant, why }) => ({ mood: 'ending', text: html`Ending ${grant}${why}` }),
  'lease.lapsing': ({ grant, why }) => ({ mood: 'ending', text: html`${grant} is left to its own end, since only time ends it${why}` }),
  'lease.revoked': ({ grant, entry: { body } }) => ({
    mood: 'ended',
    text: html`${grant} is dead: ${textIn(fieldIn(body, 'evidence'), 'statement')}`,
  }),
  'lease.expired': ({ grant }) => ({ mood: 'ended', text: html`${grant} has expired` }),
  'lease.failed': ({ grant, say }) => ({ mood: 'ended', text: html`Nothing was minted for ${grant}${say('error') ? `: ${say('error')}` : ''}` }),
  'lease.reopened': ({ grant }) => ({ mood: 'stuck', text: html`${grant} turned out to exist after all, and is being ended` }),
  'lease.stuck': ({ grant, say }) => ({ mood: 'stuck', text: html`Ending ${grant} is stuck: ${say('error')}` }),
  'revocation.started': ({ entry, why }) => ({ mood: 'ending', text: html`Revoking ${meant(entry.body)}${why}` }),
  'revocation.ended': ({ say }) => ({
    mood: 'ended',
    text: html`All that was to be revoked is dead: ${say('tasks')} tasks, ${say('leases')} leases`,
  }),
  'stop.began': ({ entry, say, why }) => ({ mood: 'stuck', text: html`Stopped issuing ${meant(entry.body)} until ${say('until')}${why}` }),
  'stop.lifted': ({ why }) => ({ mood: 'alive', text: html`Issuing goes on${why}` }),
  'request.denied': ({ say }) => ({
    mood: 'stuck',
    text: html`Refused to ${say('action')} what the policy permits: ${say('cause') === 'limit' ? 'too many leases' : 'an operator has stopped it'}`,
  }),
  'kill_list.written': ({ say }) => ({ text: html`Generation ${say('generation')} of the kill list of ${say('role')} was written` }),
  'log.opened': ({ say }) => ({ text: html`The log goes on as <code>${say('origin')}</code>, under another key; the one before it is closed` }),
  'policy.activated': ({ say }) => ({ text: html`A policy set is in force: <code>${say('policy_digest')}</code>` }),
  'request.refused': ({ say }) => ({ mood: 'stuck', text: html`<code>${say('by')}</code> was refused <code>${say('call')}</code>` }),
}

function tellDecision({ home, entry: { body, decisionId } }: About): Told {
  const permitted = textIn(body, 'outcome') === 'permit'
  // Of a denial they are also those that permitted something of it: the decision says what denied.
  const named = permitted ? textsIn(body, 'policies') : []
  return {
    mood: permitted ? 'alive' : 'stuck',
    text: html`${permitted ? 'Permitted' : 'Denied'} ${textIn(body, 'action')}${named.length > 0 ? html` by ${renderNames(named)}` : ''}.
    ${decisionId && html`<a href="${home}/decisions/${decisionId}">Why</a>`}`,
  }
}

/** What a selector names, in words. */
function meant(body: Json): string {
  const selector = fieldIn(body, 'selector')
  const named = typeof selector === 'object' && selector !== null ? Object.keys(selector).map((name) => `${name} ${textIn(selector, name)}`) : []
  return named.length === 0 ? 'everything' : named.join(', ')
}

const until = (moment: string): string => (moment === '' ? '' : `, until ${moment.slice(11, 19)} UTC`)
