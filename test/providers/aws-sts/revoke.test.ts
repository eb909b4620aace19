import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type DenySite, startDenySite } from '../../support/aws/deny-site.ts'

const patient = new AbortController().signal
let site: DenySite

beforeEach(async () => {
  site = await startDenySite()
  for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
})
afterEach(async () => {
  await site.peer.stop()
  vi.unstubAllEnvs()
})

describe.each(['boundary', 'inline'] as const)('a session that is ended by the kill list in the %s', (carrier) => {
  test('is refused from then on, and a sibling of the same role goes on', async () => {
    const provider = await site.connect({ carrier })
    const [ended, sibling] = [await site.mint(provider), await site.mint(provider)]
    expect([await ended.reads(), await sibling.reads()]).toEqual([200, 200])

    const evidence = await provider.revoke(ended.reference, patient)

    expect([await ended.reads(), await sibling.reads()]).toEqual([403, 200])
    expect(evidence).toMatchObject({ by: 'provider', statement: expect.stringContaining('generation 1 of the kill list of mayfly/invoices') })
  })
})
