import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { signCheckpoint } from '../../src/proof/checkpoint.ts'
import { entryInLeaf, type EntryFields, leafOf } from '../../src/proof/leaf.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { createSigner } from '../../src/proof/note.ts'
import { checkProof, parseProof, proofText } from '../../src/proof/entry-proof.ts'
import { leafAt, naiveInclusion, naiveRoot } from './naive.ts'

const signer = createSigner('log.example.com', new Uint8Array(32).fill(7))
const size = 21
const note = signCheckpoint(signer, { size, root: naiveRoot({ start: 0, count: size }) })
const proof = (index: number): string => proofText({ index, path: naiveInclusion(index, size), note })
const leaf = (index: number): Buffer => leafHash(leafAt(index))

describe('the proof of an entry', () => {
  test('proves its entry, and no other', () => {
    for (let index = 0; index < size; index++) {
      expect(checkProof(proof(index), leaf(index), [signer.key])).toMatchObject({ ok: true, index, checkpoint: { size } })
      expect(checkProof(proof(index), leaf(index + 1), [signer.key])).toEqual({ ok: false, fault: 'not_included' })
    }
  })

  test('is nothing to whoever does not know the key, or where the checkpoint was changed', () => {
    expect(checkProof(proof(3), leaf(3), [])).toEqual({ ok: false, fault: 'unknown_key' })
    expect(checkProof(proof(3).replace('\n21\n', '\n22\n'), leaf(3), [signer.key])).toEqual({ ok: false, fault: 'bad_signature' })
  })

  test('has the form of C2SP tlog-proof, with room for what others put there', () => {
    const text = proof(0)
    expect(text.split('\n').slice(0, 2)).toEqual(['c2sp.org/tlog-proof@v1', 'index 0'])
    expect(parseProof(text)).toEqual({ index: 0, path: naiveInclusion(0, size), note })
    expect(checkProof(text.replace('\n', '\nextra AAAA\n'), leaf(0), [signer.key]).ok).toBe(true)
  })

  test('carries its leaf to whoever asks what the entry is', () => {
    const text = proofText({ index: 3, path: naiveInclusion(3, size), note, leaf: leafAt(3) })
    expect(text.split('\n')[1]).toBe(`extra ${leafAt(3).toString('base64')}`)
    expect(checkProof(text, leaf(3), [signer.key])).toMatchObject({ ok: true, index: 3, leaf: leafAt(3) })
    expect(parseProof(text.replace('extra ', 'extra !'))).toBeUndefined()
  })

  test('that was changed anywhere is refused, and never an exception', () => {
    const text = proof(20)
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.nat(5), fc.string({ unit: 'binary', maxLength: 5 }), (at, gone, put) => {
        const changed = text.slice(0, at) + put + text.slice(at + gone)
        const checked = checkProof(changed, leaf(20), [signer.key])
        if (changed !== text && checked.ok) expect(parseProof(changed)).toEqual(parseProof(text))
      }),
      { numRuns: 2_000 },
    )
    const long = proofText({ index: 0, path: Array.from({ length: 54 }, () => leaf(0)), note })
    expect(checkProof(long, leaf(0), [signer.key])).toEqual({ ok: false, fault: 'malformed' })
  })
})

describe('a leaf', () => {
  const entry: EntryFields = {
    id: 'ent_01',
    at: '2026-11-26T13:14:04.123Z',
    xid: '18446744073709551615',
    kind: 'task.opened',
    agent: 'bot',
    body: { b: [1, 'ü'], a: null },
  }

  test('is the canonical JSON of its entry, in whatever order the fields came', () => {
    const text = `{"agent":"bot","at":"2026-11-26T13:14:04.123Z","body":{"a":null,"b":[1,"ü"]},"id":"ent_01","kind":"task.opened","xid":"18446744073709551615"}`
    expect(leafOf(entry).toString()).toBe(text)
    expect(leafOf(JSON.parse(text) as EntryFields)).toEqual(leafOf(entry))
  })

  test('says which entry it is and of what kind, and says nothing where it is not its canonical form', () => {
    const text = leafOf(entry).toString()
    expect(entryInLeaf(leafOf(entry))).toEqual({ id: 'ent_01', kind: 'task.opened' })
    expect(entryInLeaf(leafOf({ ...entry, body: 'x'.repeat(70_000) }))).toEqual({ id: 'ent_01', kind: 'task.opened' })
    for (const strange of [text.replace('{', '{"kind":"lease.revoked",'), text.replace('{', '{ '), '{"id":"ent_01"}', '[]', 'null', '7', ''])
      expect(entryInLeaf(Buffer.from(strange)), strange).toBeUndefined()
  })

  test('that would not fit into a bundle has the digest of the body in its place', () => {
    const fits = (length: number): EntryFields => ({ ...entry, body: 'x'.repeat(length) })
    const rest = leafOf(fits(0)).length
    expect(leafOf(fits(65_535 - rest))).toHaveLength(65_535)
    const digest = createHash('sha256')
      .update(`"${'x'.repeat(65_536 - rest)}"`)
      .digest('hex')
    const { body: _, ...others } = entry
    expect(JSON.parse(leafOf(fits(65_536 - rest)).toString())).toEqual({ ...others, body_digest: `sha256:${digest}` })
  })
})
