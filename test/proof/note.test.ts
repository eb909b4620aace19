import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { checkpointText, openCheckpoint, parseCheckpoint, signCheckpoint } from '../../src/proof/checkpoint.ts'
import { emptyRoot } from '../../src/proof/merkle.ts'
import { createSigner, openNote, parseVerifierKey } from '../../src/proof/note.ts'

/** The example of C2SP signed-note. */
const example = {
  key: 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k',
  note: 'This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n',
}

const signer = createSigner('log.example.com', new Uint8Array(32).fill(7))
const other = createSigner('log.example.com', new Uint8Array(32).fill(8))
const [text, note] = ['one\n\ntwo\n', signer.sign('one\n\ntwo\n')]
const signatureOf = (signed: string): string => signed.slice(signed.lastIndexOf('\n\n') + 2)

describe('a verifier key', () => {
  test('is read and written in one spelling', () => {
    const key = parseVerifierKey(example.key)
    expect(key).toMatchObject({ name: 'example.com/foo', id: '530d903a', text: example.key })
    expect(parseVerifierKey(signer.key.text)).toEqual(signer.key)
  })

  test('is read whatever base64 its key comes to', () => {
    for (let at = 0; at < 200; at++) {
      const { key } = createSigner('log.example.com', randomBytes(32))
      expect(parseVerifierKey(key.text)?.text).toBe(key.text)
    }
  })

  test.each([
    ['another id', example.key.replace('530d903a', '530d903b')],
    ['another name', example.key.replace('foo', 'fop')],
    ['an id in capitals', example.key.replace('530d903a', '530D903A')],
    ['another key', example.key.replace('3U2k', '3U2l')],
    ['a byte too many', `${example.key}AAA=`],
    ['another type', 'example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k'],
    ['no name', example.key.replace('example.com/foo', '')],
    ['a name with a space', example.key.replace('/', ' ')],
    ['white space around it', `${example.key}\n`],
    ['nothing', ''],
  ])('with %s is refused', (_, key) => {
    expect(parseVerifierKey(key)).toBeUndefined()
  })
})

describe('a signed note', () => {
  test('of the specification opens', () => {
    const key = parseVerifierKey(example.key)!
    expect(openNote(example.note, [key])).toEqual({ ok: true, text: 'This is an example message.\n', by: [key] })
  })

  test('opens for whoever knows one of its keys, and names it once', () => {
    const both = note + signatureOf(other.sign(text))
    expect(openNote(note, [signer.key])).toEqual({ ok: true, text, by: [signer.key] })
    expect(openNote(both, [other.key])).toMatchObject({ ok: true, by: [other.key] })
    expect(openNote(both + signatureOf(note), [signer.key])).toMatchObject({ ok: true, by: [signer.key] })
    expect(openNote(both, [signer.key, other.key])).toMatchObject({ by: [signer.key, other.key] })
  })

  test('does not open for those who know none of its keys', () => {
    expect(openNote(note, [])).toEqual({ ok: false, fault: 'unknown_key' })
    expect(openNote(note, [other.key])).toEqual({ ok: false, fault: 'unknown_key' })
    const namesake = createSigner('log.example.org', new Uint8Array(32).fill(7))
    expect(openNote(note, [namesake.key])).toEqual({ ok: false, fault: 'unknown_key' })
  })

  test('is refused as a whole where a known key has not signed this text', () => {
    expect(openNote(note.replace('two', 'too'), [signer.key])).toEqual({ ok: false, fault: 'bad_signature' })
    const forged = other.sign(text) + signatureOf(signer.sign('another\n'))
    expect(openNote(forged, [signer.key, other.key])).toEqual({ ok: false, fault: 'bad_signature' })
    const short = `${text}\n— log.example.com ${Buffer.from(`${signer.key.id}00`, 'hex').toString('base64')}\n`
    expect(openNote(short, [signer.key])).toEqual({ ok: false, fault: 'bad_signature' })
  })

  test.each([
    ['no signature', text],
    ['no blank line', note.replaceAll('\n\n', '\n')],
    ['no newline at its end', note.slice(0, -1)],
    ['a blank line at its end', `${note}\n`],
    ['a tab', note.replace('one', 'o\tne')],
    ['a carriage return', note.replaceAll('\n', '\r\n')],
    ['half a character', note.replace('one', 'o\ud800ne')],
    ['a hyphen for the dash', note.replace('—', '-')],
    ['two spaces', note.replace('— ', '—  ')],
    ['white space behind the signature', note.replace(/\n$/, ' \n')],
    ['a signature without bytes', `${text}\n— log.example.com ${Buffer.from(signer.key.id, 'hex').toString('base64')}\n`],
    ['loose bits in a signature', note.replace(/(.)==\n$|(.)=\n$/, '9=\n')],
    ['the other alphabet', `${text}\n— log.example.com ____AAAA\n`],
    ['a name with a plus', `${text}\n— a+b AAAAAAAA\n`],
    ['more signatures than anybody needs', text + `\n` + signatureOf(note).repeat(101)],
    ['a million characters', `${'x'.repeat(1_000_000)}\n${note}`],
  ])('with %s is malformed', (_, malformed) => {
    expect(malformed).not.toBe(note)
    expect(openNote(malformed, [signer.key])).toEqual({ ok: false, fault: 'malformed' })
  })

  test('is an answer and never an exception, whatever is given for one', () => {
    const nearly = fc
      .tuple(fc.nat(note.length), fc.nat(12), fc.string({ unit: 'binary', maxLength: 6 }))
      .map(([at, gone, put]) => note.slice(0, at) + put + note.slice(at + gone))
    fc.assert(
      fc.property(fc.oneof(nearly, fc.string({ unit: 'binary', maxLength: 300 })), (given) => {
        const opened = openNote(given, [signer.key])
        if (opened.ok) expect(opened.text).toBe(text)
        expect(openCheckpoint(given, [signer.key]).ok).toBe(false)
        expect(parseVerifierKey(given)).toBeUndefined()
      }),
      { numRuns: 3_000 },
    )
  })

  test('is not made of what could not be read again', () => {
    for (const bad of ['', 'no newline', 'a\ttab\n', 'half \ud800\n']) expect(() => signer.sign(bad)).toThrow(RangeError)
    for (const name of ['', 'a b', 'a+b', 'a\u2003b', 'a\nb', 'a\0b']) expect(() => createSigner(name, new Uint8Array(32))).toThrow(RangeError)
    expect(() => createSigner('fine', new Uint8Array(31))).toThrow(RangeError)
  })
})

describe('a checkpoint', () => {
  const head = { size: 20_852_163, root: emptyRoot }

  test('is read as it was written', () => {
    const signed = signCheckpoint(signer, head)
    expect(openCheckpoint(signed, [signer.key])).toEqual({ ok: true, checkpoint: { ...head, origin: 'log.example.com' } })
    expect(signed.startsWith('log.example.com\n20852163\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— log.example.com ')).toBe(true)
  })

  test('may have lines behind it that nobody here understands', () => {
    expect(parseCheckpoint(`${checkpointText({ ...head, origin: 'x' })}more\n`)).toMatchObject(head)
  })

  test('is not one where a key signs in the name of another log', () => {
    const foreign = signer.sign(checkpointText({ ...head, origin: 'another.example.com' }))
    expect(openCheckpoint(foreign, [signer.key])).toEqual({ ok: false, fault: 'unknown_key' })
    expect(openCheckpoint(note, [signer.key])).toEqual({ ok: false, fault: 'malformed' })
  })

  const root = emptyRoot.toString('base64')
  test.each([
    ['no origin', `\n1\n${root}\n`],
    ['no size', `log\n\n${root}\n`],
    ['a leading zero', `log\n01\n${root}\n`],
    ['a sign', `log\n+1\n${root}\n`],
    ['a size past 2^53', `log\n9007199254740992\n${root}\n`],
    ['a size of a thousand digits', `log\n${'9'.repeat(1000)}\n${root}\n`],
    ['a short root', `log\n1\nAAAA\n`],
    ['no root', `log\n1\n`],
    ['no newline at its end', `log\n1\n${root}`],
    ['an empty line', `log\n1\n${root}\n\n`],
  ])('with %s is refused', (_, malformed) => {
    expect(parseCheckpoint(malformed)).toBeUndefined()
  })

  test('of the largest size that is exact is read', () => {
    expect(parseCheckpoint(`log\n9007199254740991\n${root}\n`)?.size).toBe(2 ** 53 - 1)
  })
})
