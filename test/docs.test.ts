import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { onTheWire } from '../src/http/problem.ts'
import { entryKinds } from '../src/proof/entry-kinds.ts'
import { createTelemetry } from '../src/telemetry.ts'
import { documentedBodies, documentedFields } from './support/documented.ts'

const root = path.join(import.meta.dirname, '..')
const pages = [
  'README.md',
  'CHANGELOG.md',
  'deploy/anchors/README.md',
  ...readdirSync(path.join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

const textOf = (file: string): string => readFileSync(path.join(root, file), 'utf8')

/** What people read of a page: blocks of code have neither links nor headings. */
const proseOf = (page: string): string => textOf(page).replaceAll(/^( *)```.*?^\1```/gms, '')

/** Tests that a page names as `test/…ts`: *title*, *another*. A title may stop short, with `…`. */
function citations(page: string): { readonly file: string; readonly title: string }[] {
  const cited = textOf(page).matchAll(/`(test\/[\w/.-]+\.ts)`((?:(?::|, and|,| and)\s+\*[^*]+\*)*)/g)
  return [...cited].flatMap(([, file, titles]) => [
    { file: file!, title: '' },
    ...[...titles!.matchAll(/\*([^*]+)\*/g)].map(([, title]) => ({ file: file!, title: title!.replaceAll(/\s+/g, ' ').replace(/ ?….*/, '') })),
  ])
}

test.each(pages)('%s names only tests that there are', (page) => {
  const missing = citations(page).filter(({ file, title }) => {
    if (!existsSync(path.join(root, file))) return true
    const source = textOf(file).replaceAll(String.raw`\'`, "'")
    // A title may be put together of parts.
    return !title.split(/\$\{[^}]+\}/).every((part) => source.includes(part))
  })
  expect(missing).toEqual([])
})

test.each(pages)('%s links only to files and headings that there are', (page) => {
  const links = [...proseOf(page).matchAll(/\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)/g)]
  const broken = links.filter(([, target, heading]) => {
    const file = target ? path.join(path.dirname(page), target) : page
    return !existsSync(path.join(root, file)) || (heading !== undefined && !anchors(file).has(heading))
  })
  expect(broken.map(([link]) => link)).toEqual([])
})

test.each(pages)('%s names only files of this repository that there are', (page) => {
  const named = [...proseOf(page).matchAll(/`((?:src|test|deploy|docs|bench|migrations)\/[\w/.-]+)`/g)].map(([, file]) => file!)
  expect(named.filter((file) => !existsSync(path.join(root, file)))).toEqual([])
})

test('every outage in the docs names tests of test/outages by words of one title each', () => {
  const [, section = ''] = textOf('docs/operating.md').split('\n## Outages\n')
  const rows = section
    .split('\n## ')[0]!
    .split('\n')
    .filter((line) => line.startsWith('| '))
  expect(rows.length).toBeGreaterThan(20)
  const missing = rows.slice(1).filter((row) => {
    const [, name, titles] = /`([a-z-]+)`: (\*[^*]+\*(?:, \*[^*]+\*)*)[^|]*\|$/.exec(row) ?? []
    const file = `test/outages/${name}.test.ts`
    if (name === undefined || !existsSync(path.join(root, file))) return true
    const known = titlesIn(textOf(file))
    return ![...titles!.matchAll(/\*([^*]+?)(?: …)?\*/g)].every(([, cited]) => known.some((title) => title.includes(cited!)))
  })
  expect(missing).toEqual([])
})

/** The titles of a file of tests. One of many cases is there with each text of the file in the place of what differs between them. */
function titlesIn(source: string): string[] {
  const texts = [...source.matchAll(/(['"])((?:(?!\1)[^\\\n])*)\1/g)].map(([, , text]) => text!)
  const titles = [...source.matchAll(/(?:\b(?:test|describe)(?:\.\w+)?|\))\(\s*(['"`])((?:(?!\1)[^\\])*)\1,/g)].map(([, , title]) => title!)
  const differs = /%[a-z]|\$\{[^}]*\}|\$\w+/g
  const cases = texts.filter((text) => !titles.includes(text))
  return titles.flatMap((title) => [title, ...(title.match(differs) ? cases.map((text) => title.replaceAll(differs, () => text)) : [])])
}

test('every kind of entry has its line in the docs, and every field its meaning', () => {
  expect([...documentedBodies.keys()].toSorted()).toEqual([...entryKinds].toSorted())
  const used = [...documentedBodies.values()].flatMap(({ always, whereItApplies }) => [...always, ...whereItApplies])
  expect([...new Set(used)].toSorted()).toEqual([...documentedFields].toSorted())
})

test('every metric has its line in the docs, with its labels', () => {
  const metrics = createTelemetry({ level: 'silent' }).metrics.registry.getMetricsAsArray()
  const ours = metrics.filter(({ name }) => name.startsWith('mayfly_')) as unknown as { name: string; labelNames: string[] }[]
  const documented = [...textOf('docs/operating.md').matchAll(/^\| `(mayfly_\w+)` \|([^|]*)\|/gm)].map(([, name, labels]) => ({
    name: name!,
    labels: [...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label),
  }))
  const byName = (a: { name: string }, b: { name: string }): number => a.name.localeCompare(b.name)
  expect(documented.toSorted(byName)).toEqual(ours.map(({ name, labelNames }) => ({ name, labels: labelNames })).toSorted(byName))
})

test('every reason to say no has its line in the docs, with its status and whether to ask again', () => {
  const documented = [...textOf('docs/how-a-task-is-answered.md').matchAll(/^\| (\d{3}) \| `(\w+)` \| `(\w+)` \|/gm)].map(
    ([, status, code, retry]) => [code, { status: Number(status), retry }],
  )
  expect(Object.fromEntries(documented)).toEqual(
    Object.fromEntries(Object.entries(onTheWire).map(([code, { status, retry }]) => [code, { status, retry }])),
  )
})

/** As code forges make them of headings: of two that are alike the second has a number. */
function anchors(page: string): Set<string> {
  const names = [...proseOf(page).matchAll(/^#+ (.+)$/gm)].map(
    ([, heading]) =>
      `#${heading!
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, '')
        .trim()
        .replaceAll(/\s/g, '-')}`,
  )
  return new Set(
    names.map((name, at) => (names.indexOf(name) === at ? name : `${name}-${names.slice(0, at).filter((other) => other === name).length}`)),
  )
}
