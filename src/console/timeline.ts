import { html } from 'hono/html'
import type { LeaseId } from '../base/ids.ts'
import { fieldIn, type Json, textIn } from '../base/json.ts'
import type { Entry, Lease } from '../ledger/records.ts'
import type { Html } from './page.ts'
import type { Mood } from './words.ts'

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

/** @param grant of the lease that it is about */
export function tell(home: string, entry: Entry, grant: string): Told {
  const { kind, body, agent } = entry
  const say = (name: string): string => textIn(body, name)
  const why = html`${say('cause') ? ` (${say('cause').replaceAll('_', ' ')})` : ''}${say('by') ? html` by <code>${say('by')}</code>` : ''}${
    say('reason') ? html`: <span class="said">${say('reason')}</span>` : ''
  }`
  switch (kind) {
    case 'task.opened':
      return { mood: 'alive', text: html`Declared by ${agent}` }
    case 'task.denied':
      return { mood: 'stuck', text: html`Refused${why}` }
    case 'task.closing':
      return { mood: 'ending', text: html`Closing${why}` }
    case 'task.ended':
      return { mood: 'ended', text: html`Ended: ${say('state')}` }
    case 'task.renewed':
      return { text: html`Renewed until ${say('deadline')}` }
    case 'task.reissued':
      return { text: html`Its answer was lost: a new task token was made` }
    case 'decision.made':
      return tellDecision(home, entry)
    case 'lease.reserved':
      return { text: html`Announced ${grant}, to be minted by ${say('provider')}` }
    case 'lease.issued':
      return { mood: 'alive', text: html`Minted ${grant}${until(say('expires_at'))}` }
    case 'lease.refreshing':
      return { text: html`Asking for a fresh credential of ${grant}${until(say('expires_at'))}` }
    case 'lease.not_refreshed':
      return { text: html`No fresh credential of ${grant}: ${say('error')}` }
    case 'lease.refreshed':
      return { text: html`Refreshed ${grant}${until(say('expires_at'))}` }
    case 'lease.revoking':
      return { mood: 'ending', text: html`Ending ${grant}${why}` }
    case 'lease.lapsing':
      return { mood: 'ending', text: html`${grant} is left to its own end, since only time ends it${why}` }
    case 'lease.revoked':
      return { mood: 'ended', text: html`${grant} is dead: ${textIn(fieldIn(body, 'evidence'), 'statement')}` }
    case 'lease.expired':
      return { mood: 'ended', text: html`${grant} has expired` }
    case 'lease.failed':
      return { mood: 'ended', text: html`Nothing was minted for ${grant}${say('error') ? `: ${say('error')}` : ''}` }
    case 'lease.reopened':
      return { mood: 'stuck', text: html`${grant} turned out to exist after all, and is being ended` }
    case 'lease.stuck':
      return { mood: 'stuck', text: html`Ending ${grant} is stuck: ${say('error')}` }
    case 'revocation.started':
      return { mood: 'ending', text: html`Revoking ${meant(body)}${why}` }
    case 'revocation.ended':
      return { mood: 'ended', text: html`All that was to be revoked is dead: ${say('tasks')} tasks, ${say('leases')} leases` }
    case 'stop.began':
      return { mood: 'stuck', text: html`Stopped issuing ${meant(body)} until ${say('until')}${why}` }
    case 'stop.lifted':
      return { mood: 'alive', text: html`Issuing goes on${why}` }
    case 'request.denied':
      return {
        mood: 'stuck',
        text: html`Refused to ${say('action')} what the policy permits: ${say('cause') === 'limit' ? 'too many leases' : 'an operator has stopped it'}`,
      }
    case 'kill_list.written':
      return { text: html`Generation ${say('generation')} of the kill list of ${say('role')} was written` }
    case 'log.opened':
      return { text: html`The log goes on as <code>${say('origin')}</code>, under another key; the one before it is closed` }
    case 'policy.activated':
      return { text: html`A policy set is in force: <code>${say('policy_digest')}</code>` }
    case 'request.refused':
      return { mood: 'stuck', text: html`<code>${say('by')}</code> was refused <code>${say('call')}</code>` }
    default:
      return { text: html`${kind}` }
  }
}

function tellDecision(home: string, { body, decisionId }: Entry): Told {
  const permitted = textIn(body, 'outcome') === 'permit'
  const policies = fieldIn(body, 'policies')
  const named = Array.isArray(policies) ? policies.filter((id) => typeof id === 'string') : []
  return {
    mood: permitted ? 'alive' : 'stuck',
    text: html`${permitted ? 'Permitted' : 'Denied'}
    ${textIn(body, 'action')}${named.length > 0 ? html` by ${named.map((id, at) => html`${at > 0 ? ', ' : ''}<code>${id}</code>`)}` : ', because no policy permits it'}.
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
