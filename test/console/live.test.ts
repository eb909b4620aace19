import { connect } from 'node:net'
import { html } from 'hono/html'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { createLive, houseLive } from '../../src/console/live.ts'
import type { StreamLimits } from '../../src/http/streams.ts'
import { type House, startHouse } from '../support/house.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { type ConsoleHouse, openConsole } from './given.ts'

describe('a stream', () => {
  afterEach(() => void vi.useRealTimers())

  function given(limits: Partial<StreamLimits> = {}) {
    vi.useFakeTimers({ now: 0 })
    const stop = new AbortController()
    const state = { words: 'one', looks: 0, now: 0 }
    const live = createLive(() => Date.now() + state.now, stop.signal, { ...houseLive, ...limits })
    const regions = async () => {
      state.looks++
      return { here: html`<b>${state.words}</b>`, there: html`always the same` }
    }
    const open = (until = 3_600_000, whose = 'ann') => live.open(regions, until, whose).getReader()
    const next = async (reader: ReadableStreamDefaultReader<Uint8Array>) => {
      const read = reader.read()
      await vi.advanceTimersByTimeAsync(houseLive.silence + 1_000)
      const { value, done } = await read
      return done ? undefined : new TextDecoder().decode(value)
    }
    return { live, state, stop, open, next }
  }

  test('sends all regions first, and then those that have changed', async () => {
    const { state, open, next } = given()
    const reader = open()
    expect(await next(reader)).toBe('data: {"here":"<b>one</b>","there":"always the same"}\n\n')
    state.words = '</script>'
    expect(await next(reader)).toBe('data: {"here":"<b>&lt;/script&gt;</b>"}\n\n')
  })

  test('says that it is there when nothing changes', async () => {
    const { open, next } = given()
    const reader = open()
    await next(reader)
    expect(await next(reader)).toBe(': still here\n\n')
  })

  test('looks at nothing while its client does not read, and is dropped after half a minute', async () => {
    const { live, state, open, next } = given()
    const reader = open()
    await next(reader)
    const { looks } = state
    await vi.advanceTimersByTimeAsync(10_000)
    expect(state.looks).toBe(looks)
    expect(live.size).toBe(1)
    await vi.advanceTimersByTimeAsync(houseLive.patience)
    expect(live.size).toBe(0)
    await expect(reader.read()).rejects.toThrow('does not read')
  })

  test('that is never read at all is dropped as well', async () => {
    const { live, open } = given()
    open()
    await vi.advanceTimersByTimeAsync(houseLive.patience)
    expect(live.size).toBe(0)
  })

  test('gives its place back when its client goes, when the session ends, and when the broker stops', async () => {
    const { live, stop, open, next } = given()
    const gone = open()
    await next(gone)
    await gone.cancel()
    expect(live.size).toBe(0)

    const ended = open(Date.now() + 5_000)
    await next(ended)
    expect(await next(ended)).toBeUndefined()
    expect(live.size).toBe(0)

    const stopped = open()
    await next(stopped)
    const last = stopped.read()
    stop.abort()
    expect((await last).done).toBe(true)
    expect(live.size).toBe(0)
    expect(open).toThrow('rate_limited')
  })

  test('ends with the session that it was opened in, also where the clock is set back meanwhile', async () => {
    const { live, state, open, next } = given()
    const reader = open(Date.now() + houseLive.silence)
    state.now = -3_600_000
    await next(reader)
    expect(await next(reader)).toBeUndefined()
    expect(live.size).toBe(0)
  })

  test('is not opened where there are as many as there may be', async () => {
    const { open } = given({ most: 2 })
    const [first] = [open(), open()]
    expect(open).toThrow('This broker has as many live pages as it keeps: 2')
    await first?.cancel()
    expect(open()).toBeDefined()
  })

  test('is not opened by somebody who has their share already, and by others it is', async () => {
    const { open } = given({ most: 5, share: 2 })
    const [first] = [open(), open()]
    expect(open).toThrow('You have as many live pages as one caller may: 2')
    expect(open(undefined, 'bob')).toBeDefined()
    await first?.cancel()
    expect(open()).toBeDefined()
  })

  test('ends when a look fails, so that its client comes again', async () => {
    vi.useFakeTimers({ now: 0 })
    const live = createLive(Date.now, new AbortController().signal)
    const reader = live.open(async () => Promise.reject(new Error('the store is away')), 1_000, 'ann').getReader()
    expect((await reader.read()).done).toBe(true)
    expect(live.size).toBe(0)
  })
})

describe('a live page of a broker', () => {
  let store: OpenedStore
  let house: House
  let console: ConsoleHouse

  beforeAll(async () => {
    store = await openEmbedded()
    house = await startHouse(store.settings)
    console = await openConsole(house, { live: { most: 4, share: 3, look: 20, silence: 60, patience: 500 } })
  })
  afterAll(async () => {
    await console.stop()
    await house.stop()
    await store.dispose()
  })

  /** A client that sends its request and never reads: a raw connection, paused. */
  function deaf(path: string, cookie: string) {
    const { port } = new URL(console.url)
    const socket = connect(Number(port), '127.0.0.1')
    socket.on('error', () => {})
    socket.pause()
    socket.write(`GET /console${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncookie: ${cookie}\r\n\r\n`)
    return socket
  }

  test('shows a lease die without being asked again', async () => {
    const visitor = await console.signedIn('reader')
    const task = await house.declare(['api'])
    const answer = await visitor.get(`/tasks/${task.id}/live`)
    expect(answer.headers.get('content-type')).toBe('text/event-stream')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    const seen: string[] = []
    const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
    const until = async (words: string) => {
      while (!seen.join('').includes(words)) seen.push((await reader.read()).value ?? '')
    }
    await until('state alive\\">active')
    await task.complete()
    await until('state ended\\">revoked')
    await reader.cancel()
  })

  test('costs no place where only its headers are asked for', async () => {
    const visitor = await console.signedIn('reader')
    const cookie = `mayfly-session=${visitor.cookies.get('mayfly-session')}`
    const ask = async () => (await fetch(`${console.url}/live`, { method: 'HEAD', headers: { cookie } })).status
    for (let time = 0; time < 5; time++) expect(await ask()).toBe(200)
  })

  test('is refused beyond the share of whoever looks, in which those who do not read stand too, until they are dropped', async () => {
    const visitor = await console.signedIn('reader')
    const cookie = `mayfly-session=${visitor.cookies.get('mayfly-session')}`
    const places: Response[] = []
    const status = async () => {
      const answer = await visitor.get('/live')
      places.push(answer)
      return answer.status
    }
    // Every look finds the page longer, so that what is not read fills the connection.
    const sockets = Array.from({ length: 3 }, () => deaf('/live', cookie))
    await expect.poll(status).toBe(429)
    expect((await visitor.get('')).status).toBe(200)
    const other = await (await console.signedIn('ops')).get('/live')
    expect(other.status).toBe(200)
    await other.body?.cancel()
    sockets.forEach((socket) => socket.destroy())
    // Those too that came before the sockets were heard.
    for (const { body } of places.splice(0)) await body?.cancel()
    await expect.poll(status).toBe(200)
    for (const { body } of places) await body?.cancel()
  })

  test('does not keep a broker from stopping', async () => {
    const other = await openConsole(house)
    const visitor = await other.signedIn('reader')
    const answer = await visitor.get('/live')
    const reader = answer.body!.getReader()
    await reader.read()
    const read = (async () => {
      for (;;) if ((await reader.read()).done) return 'ended'
    })()
    await other.stop()
    expect(await read).toBe('ended')
    expect(house.log()).not.toContain('requests were still under way')
  })
})
