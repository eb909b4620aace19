import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { socketsOf } from '../../src/ledger/sockets.ts'
import { freePort } from '../support/port.ts'

describe('the sockets of a client', () => {
  let server: Server
  let open: number
  let closed: number
  const made: Socket[] = []

  beforeEach(async () => {
    server = createServer((socket) => socket.resume())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    open = (server.address() as AddressInfo).port
    closed = await freePort()
  })
  afterEach(async () => {
    for (const socket of made.splice(0)) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })

  function client(...ports: readonly number[]) {
    const told = { lost: 0 }
    const { socket: another } = socketsOf(() => told.lost++)
    const places = { host: ports.map(() => '127.0.0.1'), port: ports, path: false as const }
    const next = async () => {
      const socket = await another(places)
      made.push(socket)
      return socket
    }
    return { told, next }
  }

  test('each place is tried once, and then there is no more', async () => {
    const { told, next } = client(open)
    expect(await next()).toMatchObject({ host: '127.0.0.1', port: open, readyState: 'open' })
    expect(told.lost).toBe(0)
    await expect(next()).rejects.toThrow('the server hung up before it answered')
    expect(told.lost).toBe(1)
  })

  test('a place that cannot be reached is passed over', async () => {
    const { told, next } = client(closed, open)
    expect(await next()).toMatchObject({ port: open })
    await expect(next()).rejects.toThrow('the server hung up before it answered')
    expect(told.lost).toBe(1)
  })

  test('where none can be reached, the last says why', async () => {
    const { told, next } = client(closed, closed)
    await expect(next()).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(told.lost).toBe(1)
  })
})
