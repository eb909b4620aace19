import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Issuer } from '../../src/identity/issuer.ts'
import { type House, startHouse } from '../support/house.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { type ConsoleHouse, openConsole, operators } from './given.ts'

let store: OpenedStore
let house: House
let console: ConsoleHouse

beforeAll(async () => {
  store = await openEmbedded()
  house = await startHouse(store.settings)
  console = await openConsole(house)
})
afterAll(async () => {
  await console.stop()
  await house.stop()
  await store.dispose()
})

const pathIn = (answer: Response): string => answer.headers.get('location') ?? ''

describe("signing in at the operators' issuer", () => {
  test('leads to the issuer and back to the page that was asked for, with its question', async () => {
    console.people.always('ann')
    const visitor = console.visitor()
    const turnedAway = await visitor.get('/ledger?kind=task.opened')
    expect(turnedAway.status).toBe(303)
    expect(pathIn(turnedAway)).toBe('/console/sign-in?to=%2Fconsole%2Fledger%3Fkind%3Dtask.opened')

    const page = await visitor.follow(turnedAway)

    expect(page.url).toBe(`${console.url}/ledger?kind=task.opened`)
    expect(page.status).toBe(200)
    expect(await page.text()).toContain('ann (operator, reviewer)')
  })

  test('asks for a code with PKCE, a state and a nonce, none of which is the same twice', async () => {
    const asked = await Promise.all(
      [1, 2].map(async () => {
        const answer = await console.visitor().get('/sign-in')
        return new URL(pathIn(answer)).searchParams
      }),
    )
    for (const query of asked) {
      expect(query.get('response_type')).toBe('code')
      expect(query.get('code_challenge_method')).toBe('S256')
      expect(query.get('scope')).toBe('openid groups')
      expect(query.get('redirect_uri')).toBe(`${console.url}/signed-in`)
    }
    for (const name of ['state', 'nonce', 'code_challenge']) {
      const [one, other] = asked.map((query) => query.get(name) ?? '')
      expect(one).toMatch(/^[\w-]{43}$/)
      expect(one).not.toBe(other)
    }
  })

  test('gives the roles that the same identity has with a bearer token, and no others', async () => {
    console.people.always('rob')
    const visitor = console.visitor()
    const page = await visitor.follow(await visitor.get(''))
    expect(await page.text()).toContain('rob (reviewer)')
  })

  test('refuses somebody whom no entry gives a role, in words and without a session', async () => {
    console.people.always('eve')
    const visitor = console.visitor()
    const page = await visitor.follow(await visitor.get(''))
    expect(page.status).toBe(403)
    expect(await page.text()).toContain('You are eve of corp, and no entry under operators gives you a role')
    expect([...visitor.cookies.keys()]).not.toContain('mayfly-session')
    expect(house.log()).toContain('somebody without a role tried to sign in')
  })

  test('is finished only in the browser that began it, once, and with the state that it began with', async () => {
    console.people.always('ann')
    const [begun, other, third] = [console.visitor(), console.visitor(), console.visitor()]
    await other.get('/sign-in')
    await third.get('/sign-in')
    let step = await begun.get('/sign-in')
    while (!pathIn(step).startsWith(`${console.url}/signed-in`)) step = await begun.get(new URL(pathIn(step), step.url).href)
    const answer = pathIn(step)
    const cookie = begun.cookies.get('mayfly-sign-in')!

    expect((await console.visitor().get(answer)).status).toBe(403)
    expect((await other.get(answer)).status).toBe(403)
    const changed = new URL(answer)
    changed.searchParams.set('state', 'another')
    expect((await third.get(changed.href)).status).toBe(403)
    expect((await begun.get(answer)).status).toBe(303)
    begun.cookies.set('mayfly-sign-in', cookie)
    expect((await begun.get(answer)).status).toBe(403)
  })

  test('says that the issuer refused, without repeating what it said', async () => {
    const visitor = console.visitor()
    const begun = new URL(pathIn(await visitor.get('/sign-in')))
    const query = new URLSearchParams({ error: 'access_denied', error_description: '<b>no</b>', state: begun.searchParams.get('state')! })
    // RFC 9207: the issuer says who it is.
    query.set('iss', console.people.issuer)
    const page = await visitor.get(`/signed-in?${query.toString()}`)
    expect(page.status).toBe(403)
    const text = await page.text()
    expect(text).toContain('The issuer did not sign you in')
    expect(text).not.toContain('<b>no')
  })

  describe('that is refused', () => {
    /** What the log says of it from here on. */
    function listen(): () => string {
      const before = house.log().length
      return () => house.log().slice(before)
    }

    test('for the secret of the client is no outage, and the log says what the issuer does not accept', async () => {
      const alone = await openConsole(house, { clientSecret: 'a secret of yesterday' })
      alone.people.always('ann')
      const [said, visitor] = [listen(), alone.visitor()]
      const page = await visitor.follow(await visitor.get(''))
      expect(page.status).toBe(403)
      expect(await page.text()).toContain('The issuer did not sign you in')
      expect(said()).toContain('a sign-in to the console was refused')
      expect(said()).toContain('the token endpoint does not accept the client: 401')
      expect(said()).not.toContain('a secret of yesterday')
      expect(said()).not.toContain(new URL(page.url).searchParams.get('code'))
      await alone.stop()
    })

    test.each([
      ['an error of the issuer', { error: 'invalid_scope' }, '(invalid_scope)'],
      ['an error that somebody made up', { error: 'Hunter2 was here' }, '(AuthorizationResponseError)'],
      ['another state', { code: 'hunter2', state: 'of-hunter2' }, '(OAUTH_INVALID_RESPONSE)'],
      ['an invented code', { code: 'hunter2' }, '(invalid_grant)'],
    ])('for %s leaves its reason in the log, and nothing of the address', async (_, answer, reason) => {
      const [said, visitor] = [listen(), console.visitor()]
      const state = new URL(pathIn(await visitor.get('/sign-in'))).searchParams.get('state')!
      const query = new URLSearchParams({ state, iss: console.people.issuer, ...answer })
      expect((await visitor.get(`/signed-in?${query.toString()}`)).status).toBe(403)
      expect(said()).toContain(reason)
      expect(said().toLowerCase()).not.toContain('hunter2')
      expect(said()).not.toContain(state)
    })

    test('for having been begun in no browser, or another, leaves that in the log', async () => {
      const said = listen()
      expect((await console.visitor().get('/signed-in?code=x&state=y')).status).toBe(403)
      expect(said()).toContain('This sign-in was not begun in this browser')
    })
  })

  test.each([
    'https://evil.example.com/console',
    '//evil.example.com/console',
    '/\\evil.example.com',
    '/console/../tasks',
    '/console\n/x',
    '/consolation',
    'javascript:alert(1)',
    '/console/enter?key=x',
    '/console/sign-in?to=/console',
    `/console/${'x'.repeat(600)}`,
  ])('goes to the first page, and nowhere else, when it is told to come back to %s', async (to) => {
    console.people.always('ann')
    const visitor = console.visitor()
    const page = await visitor.follow(await visitor.get(`/sign-in?${new URLSearchParams({ to }).toString()}`))
    expect(page.url).toBe(console.url)
  })

  describe('while the issuer hangs', () => {
    let alone: ConsoleHouse
    beforeEach(async () => {
      alone = await openConsole(house)
      alone.people.always('ann')
    })
    afterEach(async () => await alone.stop())

    /** Somebody who has begun to sign in, and how they come back with a code that they made up. */
    async function withInventedCode(): Promise<() => Promise<Response>> {
      const begun = alone.visitor()
      const state = new URL(pathIn(await begun.get('/sign-in'))).searchParams.get('state')!
      const cookie = begun.cookies.get('mayfly-sign-in')!
      const answer = new URLSearchParams({ code: 'invented', state, iss: alone.people.issuer })
      return () => {
        begun.cookies.set('mayfly-sign-in', cookie)
        return begun.get(`/signed-in?${answer.toString()}`)
      }
    }

    /** @returns what those were told who were told something meanwhile, and `wake`: has the issuer answer, and tells of the others */
    function crowd(asks: readonly (() => Promise<Response>)[]): { readonly met: number[]; readonly wake: () => Promise<number[]> } {
      const answer = alone.people.hang()
      const met: number[] = []
      const all = asks.map(async (ask) => met.push((await ask()).status))
      async function wake(): Promise<number[]> {
        const before = met.length
        answer()
        await Promise.all(all)
        return met.slice(before)
      }
      return { met, wake }
    }

    const begin = () => alone.visitor().get('/sign-in')

    test('sixteen sign-ins wait for it, and whoever comes then is sent away at once', async () => {
      const { met, wake } = crowd(Array<typeof begin>(20).fill(begin))
      await expect.poll(() => met).toEqual([429, 429, 429, 429])
      expect(await wake()).toEqual(Array(16).fill(303))
    })

    test('sixteen codes wait for it, and signing in is begun all the same', async () => {
      const codes = await Promise.all(Array.from({ length: 20 }, withInventedCode))
      const { met, wake } = crowd(codes)
      await expect.poll(() => met).toEqual([429, 429, 429, 429])
      expect((await begin()).status).toBe(303)
      expect(await wake()).toEqual(Array(16).fill(403))
    })

    test('one sign-in that is sent again and again waits for it in one place, and the issuer is asked once', async () => {
      const code = await withInventedCode()
      const { met, wake } = crowd(Array<typeof code>(20).fill(code))
      await expect.poll(() => met).toEqual(Array(19).fill(403))
      expect(await wake()).toEqual([403])

      const asleep = crowd([code])
      await expect.poll(() => asleep.met).toEqual([403])
      await asleep.wake()
      const visitor = alone.visitor()
      expect((await visitor.follow(await visitor.get(''))).status).toBe(200)
    })
  })

  test('answers with a page of its own while the issuer does not answer', async () => {
    const alone = await openConsole(house)
    await alone.people.stop()
    const page = await alone.visitor().get('/sign-in')
    expect(page.status).toBe(503)
    expect(await page.text()).toContain('The issuer that signs people in does not answer as it should')
    await alone.stop().catch(() => {})
  })
})

describe('a one-time link of a development broker', () => {
  test('signs in once', async () => {
    const link = console.link('operator:ops')
    const visitor = console.visitor()
    expect((await visitor.follow(await visitor.get(link))).status).toBe(200)
    const second = await console.visitor().get(link)
    expect(second.status).toBe(403)
    expect(await second.text()).toContain('This link does not work')
  })

  test('does not work after ten minutes, nor with another signature, nor for somebody without a role', async () => {
    const link = console.link('operator:ops')
    house.skew = 600_001
    expect((await console.visitor().get(link)).status).toBe(403)
    house.skew = 0
    // Not 'B': the last two bits stand for nothing.
    expect((await console.visitor().get(link.replace(/.$/, (last) => (last === 'A' ? 'E' : 'A')))).status).toBe(403)
    expect((await console.visitor().get(console.link('operator:nobody'))).status).toBe(403)
  })

  test('stands in no log, which names the page by its pattern', async () => {
    const link = console.link('operator:ops')
    await console.visitor().get(link)
    await console.visitor().get('/nothing/at/all')
    expect(house.log()).not.toContain(new URL(link).searchParams.get('key'))
    expect(house.log()).toContain('"route":"/console/enter"')
    expect(house.log()).not.toContain('"route":"/console/*"')
  })
})

describe('a session', () => {
  test('is a cookie that no script reads and no other site sends along with a form', async () => {
    const answer = await console.visitor().get(console.link('operator:ops'))
    expect(answer.headers.getSetCookie()).toEqual([expect.stringMatching(/^mayfly-session=[^;]+; Max-Age=3600; Path=\/; HttpOnly; SameSite=Lax$/)])
  })

  test('ends by itself, and signing in leads back to the same page', async () => {
    const visitor = await console.signedIn('ops')
    house.skew = 3_600_001
    const turnedAway = await visitor.get('/ledger')
    house.skew = 0
    expect(pathIn(turnedAway)).toBe('/console/sign-in?to=%2Fconsole%2Fledger')
  })

  test('that was opened while the clock was ahead is none once it is set back, and one within the skew of two brokers is', async () => {
    house.skew = 120_000
    const ahead = await console.signedIn('ops')
    house.skew = 20_000
    const near = await console.signedIn('ops')
    house.skew = 0
    expect((await ahead.get('')).status).toBe(303)
    expect((await near.get('')).status).toBe(200)
  })

  test('that was changed by one character, or made up, is none', async () => {
    const visitor = await console.signedIn('reader')
    const [payload, signature] = visitor.cookies.get('mayfly-session')!.split('.') as [string, string]
    const raised = { ...(JSON.parse(Buffer.from(payload, 'base64url').toString()) as object), roles: ['operator'] }
    const forgeries = [
      `${Buffer.from(JSON.stringify(raised)).toString('base64url')}.${signature}`,
      `${payload}.${signature.slice(0, -2)}AA`,
      payload,
      `${payload}.${signature}.${signature}`,
      'x'.repeat(5_000),
    ]
    for (const forgery of forgeries) {
      visitor.cookies.set('mayfly-session', forgery)
      expect((await visitor.get('')).status).toBe(303)
    }
  })

  test('is one for each broker that was told the same, and over for one that was told of other operators', async () => {
    const { corp } = console
    const [same, changed] = [await openConsole(house, { corp }), await openConsole(house, { corp, operators: operators.slice(1) })]
    const visitor = await console.signedIn('ops')
    expect((await visitor.get(same.url)).status).toBe(200)
    expect((await visitor.get(changed.url)).status).toBe(303)
    await Promise.all([same.stop(), changed.stop()])
  })

  test.each([
    ['demands more of a token', { require: { tid: 'ours' } }],
    ['is of another address', { issuer: 'https://login.example.com' }],
    ['has other keys', { keys: { url: 'https://keys.example.com' } }],
  ] satisfies [string, Partial<Issuer>][])("is over for a broker whose issuer's entry %s", async (_, change) => {
    const changed = await openConsole(house, { corp: { ...console.corp, ...change } })
    const visitor = await console.signedIn('ops')
    expect((await visitor.get(changed.url)).status).toBe(303)
    await changed.stop()
  })

  test('a sealed text of one purpose is none of another: a sign-in that was begun is no session', async () => {
    const visitor = console.visitor()
    await visitor.get('/sign-in')
    visitor.cookies.set('mayfly-session', visitor.cookies.get('mayfly-sign-in')!)
    expect((await visitor.get('')).status).toBe(303)
  })

  test('is gone from the browser after signing out', async () => {
    const visitor = await console.signedIn('ops')
    const answer = await visitor.post('/sign-out', {})
    expect(pathIn(answer)).toBe('/console/signed-out')
    expect(visitor.cookies.has('mayfly-session')).toBe(false)
    expect((await visitor.get('')).status).toBe(303)
  })

  test('that is over is left without a look at the form, of which a stranger may send as little as they like', async () => {
    const form = console.visitor().begin('/sign-out')
    const { statusCode, headers } = await form.answer
    expect([statusCode, headers.location, headers['set-cookie']]).toEqual([303, '/console/signed-out', undefined])
    form.leave()
  })

  test('opens nothing of the API, which is for bearer tokens alone', async () => {
    const visitor = await console.signedIn('ops')
    expect((await visitor.get(console.url.replace(/\/console$/, '/tasks'))).status).toBe(401)
  })
})
