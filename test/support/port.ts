import { createServer } from 'node:net'

/** Of this worker alone, and below those that the system gives to whoever asks for any: between the look and the use nobody else takes one. */
const range = { first: 10_000 + Number(process.env['VITEST_POOL_ID'] ?? 0) * 4_000, count: 4_000 }
let next = Math.floor(Math.random() * range.count)

/** A port on loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (let look = 0; look < range.count; look++) {
    const port = range.first + (next++ % range.count)
    if (await isFree(port)) return port
  }
  throw new Error(`no port is free from ${range.first} on`)
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  const listening = new Promise<boolean>((resolve) => server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true)))
  if (!(await listening)) return false
  await new Promise((resolve) => server.close(resolve))
  return true
}
