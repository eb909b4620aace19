import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { corp, gateFor, goodClaims, signed, signingKey } from './given.ts'

const key = signingKey('k1')

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes in use by what is still reachable. */
function inUse(): number {
  collect()
  return process.memoryUsage().heapUsed
}

test('A verified token is remembered without the claims that nobody asks for again', async () => {
  const gate = gateFor(corp(key))
  const full = (jti: string) => signed(key, { ...goodClaims, jti, extra: Array.from({ length: 1_800 }, () => ({})) })
  await gate.accept(full('first'))
  const before = inUse()
  for (let token = 0; token < 200; token++) await gate.accept(full(`token ${token}`))
  expect((inUse() - before) / 200).toBeLessThan(10_000)
})
