import { beforeEach, describe, expect, test } from 'vitest'
import { createWitness, type Submit, type Witness } from '../../src/ledger/witness.ts'
import { openCheckpoint, signCheckpoint } from '../../src/proof/checkpoint.ts'
import { cosignedAt, parseWitnessKey } from '../../src/proof/cosignature.ts'
import { createSigner, parseVerifierKey } from '../../src/proof/note.ts'
import { naiveConsistency, naiveRoot } from '../proof/naive.ts'
import { createTestWitness, type TestWitness, witnessedAt } from '../support/witness.ts'

const origin = 'broker.example.com'
const signer = createSigner(origin, new Uint8Array(32).fill(7))
const successor = createSigner(`${origin}/log/2`, new Uint8Array(32).fill(8))
const noteOf = (size: number, by = signer): string => signCheckpoint(by, { size, root: naiveRoot({ start: 0, count: size }) })
/** A checkpoint of another history, by the same key. */
const forked = (size: number): string => signCheckpoint(signer, { size, root: naiveRoot({ start: 1, count: size }) })

let peer: TestWitness
let submit: Submit
let witness: Witness

beforeEach(() => {
  peer = createTestWitness('witness.example/w1', [signer.key, successor.key])
  submit = async (body) => peer.add(body)
  witness = again()
})

/** A broker that was started anew: it has forgotten how far the witness is. */
const again = (): Witness => createWitness(peer.key, async ({ size }, from) => naiveConsistency(from, size))

const sizesTold = (): string[] => peer.asked.map((body) => body.slice(0, body.indexOf('\n')))

describe('a witness', () => {
  test('cosigns each checkpoint that goes on from the last, with one request each', async () => {
    for (const size of [1, 2, 3, 7, 8, 300]) {
      const note = await witness.cosign(noteOf(size), submit)
      expect(cosignedAt(note, peer.key)).toBe(witnessedAt)
      expect(openCheckpoint(note, [signer.key])).toMatchObject({ ok: true, checkpoint: { size } })
    }
    expect(sizesTold()).toEqual(['old 0', 'old 1', 'old 2', 'old 3', 'old 7', 'old 8'])
  })

  test('that has seen more than is remembered says so, and is asked again from there', async () => {
    await witness.cosign(noteOf(40), submit)
    expect(cosignedAt(await again().cosign(noteOf(100), submit), peer.key)).toBe(witnessedAt)
    expect(sizesTold()).toEqual(['old 0', 'old 0', 'old 40'])
  })

  test('cosigns again what another broker has shown it, and the new log of a key that was rotated', async () => {
    const other = again()
    await witness.cosign(noteOf(40), submit)
    expect(cosignedAt(await other.cosign(noteOf(40), submit), peer.key)).toBe(witnessedAt)
    expect(cosignedAt(await witness.cosign(noteOf(1, successor), submit), peer.key)).toBe(witnessedAt)
    expect(peer.seen.get(successor.key.name)?.size).toBe(1)
  })

  test.each([
    ['has lost entries', () => noteOf(30), 'the witness has seen 40 entries of the log, and this checkpoint has 30'],
    ['was written anew and is longer', () => forked(50), 'the witness has seen another history of the log, and does not cosign this one'],
    ['was written anew and is as long', () => forked(40), 'the witness has seen another history of the log, and does not cosign this one'],
  ])('does not cosign a log that %s, whether or not the broker remembers', async (_, note, words) => {
    await witness.cosign(noteOf(40), submit)
    for (const broker of [witness, again()]) await expect(broker.cosign(note(), submit)).rejects.toThrow(words)
    expect(peer.seen.get(origin)?.root).toEqual(naiveRoot({ start: 0, count: 40 }))
  })

  test('that knows another key, or no such log, is reported as that', async () => {
    for (const [logs, words] of [
      [[createSigner(origin, new Uint8Array(32).fill(9)).key], 'the witness knows another key of the log'],
      [[], 'the witness does not know the log'],
    ] as const) {
      peer = createTestWitness('witness.example/w1', logs)
      await expect(again().cosign(noteOf(3), submit)).rejects.toThrow(words)
    }
  })

  test('is asked no further where the store cannot prove what it has seen', async () => {
    await witness.cosign(noteOf(40), submit)
    const broker = createWitness(peer.key, async () => undefined)
    await expect(broker.cosign(noteOf(50), submit)).rejects.toThrow('the log of the store has no proof from the 40 entries that the witness has seen')
    expect(sizesTold()).toEqual(['old 0', 'old 0'])
  })

  const otherWitness = createTestWitness('witness.example/w2', 'any', 6)
  const pretender = createTestWitness('witness.example/w1', 'any', 6)
  const text = noteOf(3).slice(0, noteOf(3).lastIndexOf('\n\n') + 1)
  test.each([
    ['nothing', ''],
    ['what is no signature', 'cosigned\n'],
    ["another witness's cosignature", otherWitness.line(text)],
    ['one of another key under its name', pretender.line(text)],
    ['one of another checkpoint', createTestWitness('witness.example/w1', 'any').line(noteOf(4))],
    ['its name with garbage behind it', '— witness.example/w1 !!!\n'],
    ['thousands of lines', '— witness.example/w1 AAAAAAAA\n'.repeat(2_000)],
  ])('that answers with %s has not cosigned', async (_, answer) => {
    await expect(witness.cosign(noteOf(3), async () => ({ status: 200, text: answer }))).rejects.toThrow(
      'what the witness answered is no cosignature of its key',
    )
  })

  test('may say more than its own cosignature: nothing else is kept', async () => {
    const more = `${otherWitness.line(text)}${peer.line(text)}\n\nhello\n`
    const note = await witness.cosign(noteOf(3), async () => ({ status: 200, text: more }))
    expect(note).toBe(`${noteOf(3)}${peer.line(text)}`)
  })

  test.each(['', 'many\n', '-1\n', '007\n', '9'.repeat(40)])('that has seen %j of the log is believed nothing', async (size) => {
    await expect(witness.cosign(noteOf(3), async () => ({ status: 409, text: size }))).rejects.toThrow('does not say how much')
  })

  test('that is never content is asked twice, and then left until the next try', async () => {
    let asked = 0
    await expect(witness.cosign(noteOf(3), async () => (asked++, { status: 409, text: '2\n' }))).rejects.toThrow('another checkpoint meanwhile')
    expect(asked).toBe(2)
  })
})

describe('the key of a witness', () => {
  test('is of type 4, and is taken for no key of a log', () => {
    expect(parseWitnessKey(peer.key.text)?.name).toBe('witness.example/w1')
    expect(parseVerifierKey(peer.key.text)).toBeUndefined()
    expect(parseWitnessKey(signer.key.text)).toBeUndefined()
    expect(parseWitnessKey(peer.key.text.replace(/\+[0-9a-f]{8}\+/, '+00000000+'))).toBeUndefined()
  })
})
