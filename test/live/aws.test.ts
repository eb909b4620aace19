import { importJWK, type JWK, SignJWT } from 'jose'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LiveAccount, type LiveIssuer, openAccount } from './account.ts'
import { questions } from './questions.ts'

// Run by `MAYFLY_LIVE_AWS=1` alone (vitest.config.ts), in an account that is named: docs/aws-live.md says what it takes, costs and leaves behind.
const read = (name: string): string | undefined => process.env[`MAYFLY_LIVE_AWS_${name}`]
const minutes = 60_000

let account: LiveAccount

beforeAll(async () => {
  const [first = 'us-east-1', ...others] = (read('REGIONS') ?? 'us-east-1,eu-central-1').split(',')
  const expected = read('ACCOUNT')
  if (expected === undefined) throw new Error('MAYFLY_LIVE_AWS_ACCOUNT must name the account that is meant')
  account = await openAccount(expected, { regions: [first, ...others], rounds: Number(read('ROUNDS') ?? 20), look: 100, issuer: issuer() })
}, 5 * minutes)
afterAll(() => account?.[Symbol.asyncDispose](), 10 * minutes)

test.for(questions)('measures $asks', { timeout: 60 * minutes }, async ({ asks, measure }, context) => {
  const found = await measure(account)
  if (!found) return context.skip('it needs MAYFLY_LIVE_AWS_ISSUER and MAYFLY_LIVE_AWS_ISSUER_KEY')
  process.stdout.write(`\n${asks}\n${found.map((line) => `  ${line}\n`).join('')}`)
  expect(found.length).toBeGreaterThan(0)
})

/** Signs with a key whose public half is in the JWKS at the issuer. */
function issuer(): LiveIssuer | undefined {
  const [url, file] = [read('ISSUER'), read('ISSUER_KEY')]
  if (url === undefined || file === undefined) return undefined
  const key = JSON.parse(readFileSync(file, 'utf8')) as JWK
  const header = { alg: 'ES256', ...(key.kid !== undefined && { kid: key.kid }) }
  return { url, sign: async (claims) => await new SignJWT({ ...claims }).setProtectedHeader(header).sign(await importJWK(key, 'ES256')) }
}
