import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { attributesOf } from '../../src/identity/profiles.ts'
import { checkCases } from '../../src/policy/cases.ts'
import { loadCatalogue } from '../../src/policy/catalogue.ts'
import { loadPolicySet } from '../../src/policy/document.ts'

const folder = join(import.meta.dirname, '../../deploy/example')

test('the configuration that npm start runs loads, and its policies answer every case as expected', async () => {
  const tokens = z.strictObject({ audience: z.url(), scope: z.string() })
  const catalogue = await loadCatalogue(
    join(folder, 'catalogue.yaml'),
    new Map([['tokens', { grant: tokens }]]),
    new Map([['local', attributesOf({ profile: 'oidc' })]]),
  )
  const set = await loadPolicySet(join(folder, 'policies'))

  const results = await checkCases(catalogue, set, join(folder, 'policies/cases.yaml'))

  expect(results.length).toBeGreaterThan(10)
  expect(results.filter(({ ok }) => !ok)).toEqual([])
  const decided = new Set(results.flatMap(({ got }) => got.policies))
  expect([...decided].toSorted()).toEqual(['finance-exports', 'finance-reads', 'frozen-customers', 'reports-declare', 'reports-read'])
})
