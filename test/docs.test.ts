import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { entryKinds } from '../src/ledger/entries.ts'
import { documentedBodies, documentedFields } from './support/documented.ts'

const root = path.join(import.meta.dirname, '..')
const pages = [
  'README.md',
  ...readdirSync(path.join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** Tests that a page names as `test/…ts`: *title*. A title may stop short, with `…`. */
function citations(page: string): { readonly file: string; readonly title: string }[] {
  const text = readFileSync(path.join(root, page), 'utf8')
  return [...text.matchAll(/`(test\/[\w/.-]+\.ts)`: \*([^*]+)\*/g)].map(([, file, title]) => ({ file: file!, title: title!.replace(/ ?….*/, '') }))
}

test.each(pages)('%s names only tests that there are', (page) => {
  const missing = citations(page).filter(({ file, title }) => {
    const source = readFileSync(path.join(root, file), 'utf8').replaceAll(String.raw`\'`, "'")
    // A title may be put together of parts.
    return !title.split(/\$\{[^}]+\}/).every((part) => source.includes(part))
  })
  expect(missing).toEqual([])
})

test.each(pages)('%s links only to pages and headings that there are', (page) => {
  const text = readFileSync(path.join(root, page), 'utf8')
  const broken = [...text.matchAll(/\]\(([\w./-]+\.md)?(#[\w-]+)?\)/g)].filter(([, target, heading]) => {
    const file = path.join(root, path.dirname(page), target ?? path.basename(page))
    const found = tryRead(file)
    return found === undefined || (heading !== undefined && !anchors(found).has(heading))
  })
  expect(broken.map(([link]) => link)).toEqual([])
})

test('every kind of entry has its line in the docs, and every field its meaning', () => {
  expect([...documentedBodies.keys()].toSorted()).toEqual([...entryKinds].toSorted())
  const used = [...documentedBodies.values()].flatMap(({ always, whereItApplies }) => [...always, ...whereItApplies])
  expect([...new Set(used)].toSorted()).toEqual([...documentedFields].toSorted())
})

function tryRead(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** As code forges make them of headings. */
const anchors = (text: string): Set<string> =>
  new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(
      ([, heading]) =>
        `#${heading!
          .toLowerCase()
          .replaceAll(/[^\w\s-]/g, '')
          .trim()
          .replaceAll(/\s/g, '-')}`,
    ),
  )
