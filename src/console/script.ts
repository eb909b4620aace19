/**
 * The one script of all pages. Without it they are complete and only stand still: it makes times relative, and swaps the regions that the server
 * renders anew. What it swaps in was escaped by the same templates as the page.
 *
 * A region is filled and not replaced, so that a screen reader that watches it hears what is new; whoever had the keyboard on one of its links keeps it.
 */
export const script = `(() => {
  const skew = Date.now() - Number(document.documentElement.dataset.now)
  const units = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']]
  const span = (seconds) => {
    const at = units.findIndex(([size]) => seconds >= size)
    if (at < 0) return '0s'
    const [[size, letter], finer] = [units[at], units[at + 1]]
    return Math.floor(seconds / size) + letter + (finer ? ' ' + Math.floor((seconds % size) / finer[0]) + finer[1] : '')
  }
  const tick = () => {
    for (const time of document.querySelectorAll('time[data-relative]')) {
      const left = (Date.parse(time.dateTime) - (Date.now() - skew)) / 1000
      time.title ||= time.textContent
      const text = left >= 0 ? 'in ' + span(Math.ceil(left)) : span(Math.floor(-left)) + ' ago'
      if (time.textContent !== text) time.textContent = text
    }
  }
  const fill = (region, html) => {
    const held = region.contains(document.activeElement) && document.activeElement.getAttribute('href')
    region.innerHTML = html
    if (held) [...region.querySelectorAll('a')].find((link) => link.getAttribute('href') === held)?.focus()
  }
  tick()
  setInterval(tick, 1000)
  const { live } = document.body.dataset
  if (!live) return
  const say = (text) => { const place = document.getElementById('live'); if (place.textContent !== text) place.textContent = text }
  const source = new EventSource(live)
  source.onopen = () => say('live')
  source.onmessage = ({ data }) => {
    for (const [id, html] of Object.entries(JSON.parse(data))) {
      const region = document.getElementById(id)
      if (region) fill(region, html)
    }
    tick()
  }
  source.onerror = () => say(source.readyState === EventSource.CLOSED ? 'no longer live: reload the page' : 'not live: connecting again')
  addEventListener('pagehide', () => source.close())
})()`
