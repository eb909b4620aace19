import type { Client } from '../client/client.ts'
export async function runWithTask(_c: Client, _o: object, _t: (line: string) => void): Promise<number> {
  throw new Error('exec placeholder')
}
