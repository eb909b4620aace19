import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exchange } from '../../src/providers/exchange.ts'

describe('the pause that a backend asks for', () => {
  let pause: string | undefined
  const server = createServer((_, response) => response.writeHead(429, pause === undefined ? {} : { 'retry-after': pause }).end())
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)))
  afterAll(() => new Promise((resolve) => server.close(resolve)))

  test.each([
    ['7', 7_000],
    ['0', 0],
    ['86400', 60_000],
    [undefined, 0],
    ['', 0],
    ['-1', 0],
    ['1.5', 0],
    ['soon', 0],
    ['Fri, 27 Nov 2026 12:00:00 GMT', 0],
  ])('is read in seconds, and is a minute at most: %s', async (header, pointlessFor) => {
    pause = header
    const { port } = server.address() as AddressInfo
    const answer = await exchange(() => request({ host: '127.0.0.1', port, agent: false }), undefined, AbortSignal.timeout(5_000))
    expect(answer).toMatchObject({ status: 429, pointlessFor })
  })
})
