import { expect, test } from 'vitest'
import { z } from 'zod'
import { leaseAnswer, mintAnswer, mintRequest, problem } from '../../src/providers/http/contract.ts'

/** The schemas of the documentation are these shapes. `npx vitest run test/providers/schemas.test.ts -u` writes them. */
test.each([
  ['mint-request', mintRequest],
  ['mint-answer', mintAnswer],
  ['lease-answer', leaseAnswer],
  ['problem', problem],
])('docs/provider-http/%s.schema.json is what the broker checks', async (name, shape) => {
  const path = new URL(`../../docs/provider-http/${name}.schema.json`, import.meta.url).pathname
  const schema = `${JSON.stringify(z.toJSONSchema(shape, { io: 'input', override }), null, 2)}\n`
  await expect(schema).toMatchFileSnapshot(path)
})

/** `format` says it; the expression that zod adds says the same in 200 characters. */
function override({ jsonSchema }: { jsonSchema: z.core.JSONSchema.BaseSchema }): void {
  if (jsonSchema.format === 'date-time') delete jsonSchema.pattern
}
