import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConfigurationError } from '../../src/base/errors.ts'
import { developmentOverrides, devConsole, devToken, keepAudience } from '../../src/main/development.ts'

let data: string
beforeEach(async () => {
  data = path.join(await mkdtemp(path.join(tmpdir(), 'mayfly-development-')), 'data')
})
afterEach(() => rm(path.dirname(data), { recursive: true }))

const token = () => devToken({ data, sub: 'agent:bot', lifetimeSeconds: 60 })
const link = () => devConsole({ data, operator: 'ops' })

describe('the data folder of a development broker', () => {
  test('is made where there is none, for its user alone, and tokens and links of it are for whoever it is told', async () => {
    const { publicUrl } = await developmentOverrides(data, 4_000)
    expect((await stat(data)).mode & 0o777).toBe(0o700)
    await keepAudience(data, publicUrl)
    expect(JSON.parse(Buffer.from((await token()).split('.')[1]!, 'base64url').toString())).toMatchObject({ aud: 'http://127.0.0.1:4000' })
    expect(await link()).toMatch(/^http:\/\/127\.0\.0\.1:4000\/console\/enter\?key=/)
  })

  test.each([
    ['0770', 0o770],
    ['0707', 0o707],
    ['0755', 0o755],
  ])('is refused before anything in it is believed or made where it is open to others, as with %s', async (_, mode) => {
    await developmentOverrides(data, 4_000)
    await rm(path.join(data, 'local-issuer.json'))
    await writeFile(path.join(data, 'audience'), 'https://elsewhere.example.com')
    await chmod(data, mode)
    for (const use of [token, link, () => developmentOverrides(data, 4_000)]) {
      const refused: unknown = await use().catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(ConfigurationError)
      expect((refused as ConfigurationError).faults).toEqual([`--data: ${data} is open to others; chmod 700 it`])
    }
    expect(await readdir(data)).toEqual(['audience'])
  })

  test('is not made by whoever asks for a token or a link', async () => {
    for (const use of [token, link]) await expect(use()).rejects.toThrow('is not the data folder of a development broker')
    await expect(stat(data)).rejects.toThrow('ENOENT')
  })
})
