import { html } from 'hono/html'
import type { Minute } from '../ledger/overview.ts'
import type { Html } from './page.ts'

/** Drawn on the server as shapes without style of their own: the page's policy lets none in. */
const width = 480
const height = 92
const floor = 70

interface Bar {
  readonly label: string
  readonly parts: readonly { readonly value: number; readonly mood: 'bar' | 'denied' }[]
  /** Shown under it. */
  readonly tick: string
  /** Whether its number stands over it. */
  readonly numbered: boolean
}

function renderBars(bars: readonly Bar[], saying: string): Html {
  const highest = Math.max(1, ...bars.map(({ parts }) => total(parts)))
  const step = width / bars.length
  return html`<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${saying}">
    ${bars.map((bar, at) => renderBar(bar, at * step, step, highest))}
    <path class="base" d="M0 ${floor + 0.5}H${width}" />
    ${bars.every(({ numbered }) => !numbered) ? html`<text x="0" y="10">${highest.toLocaleString('en')} at most</text>` : ''}
  </svg>`
}

function renderBar({ label, parts, tick, numbered }: Bar, left: number, step: number, highest: number): Html {
  let top = floor
  const shapes = parts
    .filter(({ value }) => value > 0)
    .map(({ value, mood }) => {
      const tall = round((value / highest) * (floor - 16))
      top -= tall
      return html`<path class="${mood}" d="M${round(left + 1)} ${round(top)}h${round(step - 2)}v${tall}H${round(left + 1)}z" />`
    })
  const middle = round(left + step / 2)
  const number = numbered && total(parts) > 0 ? html`<text x="${middle}" y="${round(top - 4)}">${total(parts).toLocaleString('en')}</text>` : ''
  const under = tick === '' ? '' : html`<text x="${middle}" y="${height - 6}">${tick}</text>`
  return shapes.length === 0 ? html`${under}` : html`<g><title>${label}</title>${shapes}${number}</g>${under}`
}

const round = (value: number): number => Math.round(value * 10) / 10
const total = (parts: Bar['parts']): number => parts.reduce((sum, { value }) => sum + value, 0)

const minute = 60_000

/** How many minutes are shown. */
export const minutesShown = 30

/** Decisions of the last half an hour, the minute that is running at the right. @param now milliseconds */
export function renderDecisions(minutes: readonly Minute[], now: number): Html {
  const last = Math.floor(now / minute) * minute
  const found = new Map(minutes.map((one) => [one.at, one]))
  const all = minutes.reduce((sum, { permitted, denied }) => ({ permitted: sum.permitted + permitted, denied: sum.denied + denied }), {
    permitted: 0,
    denied: 0,
  })
  const bars = Array.from({ length: minutesShown }, (_, index): Bar => {
    const at = last - (minutesShown - 1 - index) * minute
    const { permitted, denied } = found.get(at) ?? { permitted: 0, denied: 0 }
    const clock = new Date(at).toISOString().slice(11, 16)
    return {
      label: `${clock}: ${permitted} permitted, ${denied} denied`,
      parts: [
        { value: permitted, mood: 'bar' },
        { value: denied, mood: 'denied' },
      ],
      tick: index % 10 === 4 ? clock : '',
      numbered: false,
    }
  })
  const saying = `${all.permitted.toLocaleString('en')} permitted, ${all.denied.toLocaleString('en')} denied in the last ${minutesShown} minutes`
  return html`${renderBars(bars, saying)}
    <p class="quiet">${saying}, by the minute.</p>`
}

/** Upper ends in milliseconds: from what the broker itself answers for to what somebody was called for. */
const classes = [
  { below: 10, tick: '< 10 ms' },
  { below: 100, tick: '100 ms' },
  { below: 1_000, tick: '1 s' },
  { below: 10_000, tick: '10 s' },
  { below: 60_000, tick: '1 min' },
  { below: Number.POSITIVE_INFINITY, tick: 'longer' },
] as const

/** How long revocations took, from the cause to the evidence. @param times milliseconds */
export function renderTimesToDead(times: readonly number[]): Html {
  if (times.length === 0) return html`<p class="quiet">Nothing has been revoked yet.</p>`
  const bars = classes.map(({ below, tick }, at): Bar => {
    const from = classes[at - 1]?.below ?? -1
    const value = times.filter((time) => time < below && time >= from).length
    return { label: `${tick}: ${value}`, parts: [{ value, mood: 'bar' }], tick, numbered: true }
  })
  const sorted = times.toSorted((one, other) => one - other)
  const saying = `Half within ${duration(at(sorted, 0.5))}, 99 of 100 within ${duration(at(sorted, 0.99))}, the slowest ${duration(sorted.at(-1)!)}`
  return html`${renderBars(bars, saying)}
    <p class="quiet">${saying}. The last ${times.length.toLocaleString('en')} with evidence.</p>`
}

const at = (sorted: readonly number[], share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!

/** Milliseconds in words, to two digits or so: durations on the wire have no milliseconds. */
function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(1, Math.round(ms))} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`
  return `${(ms / 3_600_000).toFixed(1)} h`
}
