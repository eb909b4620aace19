import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { listEntries } from '../../src/ledger/lists.ts'
import { findTask } from '../../src/ledger/records.ts'
import { type House, startHouse } from '../support/house.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { type ConsoleHouse, openConsole, untilDead } from './given.ts'

/** Debian's, which `.ci/run` installs. */
const executablePath = '/usr/bin/chromium'
const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

describe.skipIf(!existsSync(executablePath))('the console in a browser', () => {
  let store: OpenedStore
  let lab: Lab
  let house: House
  let console: ConsoleHouse
  let browser: Browser
  /** Whatever the browser complained about, a breach of the content security policy among it. */
  const complaints: string[] = []

  beforeAll(async () => {
    store = await openEmbedded()
    // With more patience than the house has with its own: a browser that starts takes all that the machine has.
    lab = await startLab()
    const settings = { url: lab.url, revocation: 'provider', timeout: '20s' }
    house = await startHouse(store.settings, { kind: 'http', name: 'backend', settings, grants: { 'backend-read': 'sensitivity: high' } })
    console = await openConsole(house)
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  })
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close()
    expect(complaints.splice(0)).toEqual([])
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await browser.close()
    await console.stop()
    await house.stop()
    await lab.stop()
    await store.dispose()
  })

  async function blank(options: BrowserContextOptions = {}): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options })
    const page = await context.newPage()
    page.on('console', (message) => {
      // The issuer's own pages are its own business.
      if (message.type() === 'error' && !message.location().url.startsWith(console.people.issuer)) complaints.push(message.text())
    })
    page.on('pageerror', (error) => complaints.push(error.message))
    return page
  }

  async function visit(who: 'ops' | 'reader', path = '', options: BrowserContextOptions = {}): Promise<Page> {
    const page = await blank(options)
    await page.goto(console.link(`operator:${who}`))
    if (path !== '') await page.goto(`${console.url}${path}`)
    return page
  }

  const isLive = (page: Page) => page.locator('#live', { hasText: /^live$/ }).waitFor()

  test('people sign in at their issuer, and are brought to the page that they asked for', async () => {
    const page = await blank()
    await page.goto(`${console.url}/ledger?kind=policy.activated`)
    await page.getByRole('link', { name: 'ann' }).click()
    await page.getByRole('heading', { name: 'Ledger' }).waitFor()
    expect(page.url()).toBe(`${console.url}/ledger?kind=policy.activated`)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor()
  })

  test('forms of a session that has ended lead to the issuer and back, and nobody takes for done what was not', async () => {
    const task = await house.declare(['api'])
    const page = await blank()
    console.people.always('ann')
    await page.goto(`${console.url}/ledger`)
    await page.context().clearCookies({ name: 'mayfly-session' })
    await page.getByLabel('Agent').fill('bot')
    await page.getByRole('button', { name: 'Ask' }).click()
    await page.waitForURL(/\/ledger\?.*agent=bot/)
    await page.getByRole('heading', { name: 'Ledger' }).waitFor()

    await page.goto(`${console.url}/tasks/${task.id}`)
    await page.getByLabel('Why it must end').fill('too late')
    await page.context().clearCookies({ name: 'mayfly-session' })
    await page.getByRole('button', { name: 'End this task now' }).click()
    await page.getByText('What you sent was not done.').waitFor()
    // Both of its answers say 401, which the browser notes, and nothing else.
    expect(complaints.splice(0).filter((text) => !text.includes('401'))).toEqual([])
    await page.getByRole('link', { name: 'Sign in again' }).click()
    await page.getByLabel('Why it must end').waitFor()
    expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
    await task.complete()
  })

  test('an operator watches a task appear, ends it with a reason, and sees each lease die', async () => {
    const page = await visit('ops')
    await isLive(page)
    const task = await house.declare(['api', 'backend-read'], { purpose: 'nightly sync for acme' })
    await page.getByText('nightly sync for acme').waitFor()
    await page.getByRole('link', { name: 'work' }).click()
    await isLive(page)
    const states = page.locator('#leases .state')
    expect(await states.allTextContents()).toEqual(['active', 'active'])

    await lab.next('delete', 'held')
    await page.getByLabel('Why it must end').fill('the key was seen in a chat')
    await page.getByRole('button', { name: 'End this task now' }).click()
    await expect.poll(() => states.allTextContents()).toEqual(['revoked', 'revoking'])
    await lab.release()
    await expect.poll(() => states.allTextContents()).toEqual(['revoked', 'revoked'])

    await page.getByText('backend-read is dead').waitFor()
    expect(await page.locator('#head').textContent()).toContain('the key was seen in a chat')
    expect((await findTask(house.ledger, task.id))!.task).toMatchObject({ state: 'revoked', endedBy: 'operator:local/operator:ops' })
  })

  test('ending a task works where no script runs', async () => {
    const page = await visit('ops', '', { javaScriptEnabled: false })
    const task = await house.declare(['api'])
    await page.goto(`${console.url}/tasks/${task.id}`)
    await page.getByLabel('Why it must end').fill('no script here')
    await page.getByRole('button', { name: 'End this task now' }).click()
    await page.locator('#leases .state', { hasText: 'revoked' }).waitFor()
  })

  test('a reviewer finds no button, is refused when they send the form all the same, and the ledger says so', async () => {
    const task = await house.declare(['api'])
    const page = await visit('reader', `/tasks/${task.id}`)
    await page.getByText('Ending this task is for operators').waitFor()
    expect(await page.getByRole('button', { name: 'End this task now' }).count()).toBe(0)
    const sent = page.waitForResponse((answer) => answer.url().endsWith('/revoke'))
    await page.evaluate(`{
      const form = document.querySelector('.who form')
      form.action = '/console/tasks/${task.id}/revoke'
      form.append(Object.assign(document.createElement('input'), { name: 'reason', value: 'let me' }))
      form.submit()
    }`)
    expect((await sent).status()).toBe(403)
    await page.getByText('Only an operator may do this').waitFor()
    // The page that says no is an error to the browser.
    complaints.length = 0
    expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
    expect((await listEntries(house.ledger, { kind: 'request.refused' }, { limit: 5 })).items).toMatchObject([{ taskId: task.id }])
    await task.complete()
  })

  test('markup that an agent wrote is text, also where it is swapped into the page', async () => {
    const page = await visit('reader')
    await isLive(page)
    const task = await house.declare(['backend-read'], { purpose: markup })
    await page.getByText(markup).waitFor()
    await page.goto(`${console.url}/tasks/${task.id}`)
    await isLive(page)
    await page.getByText(markup).waitFor()
    expect(await page.locator('main img, main script').count()).toBe(0)
    expect(await page.title()).not.toBe('owned')
    await task.complete()
  })

  test('a page keeps the keyboard where it was when it changes', async () => {
    const task = await house.declare(['api'])
    const page = await visit('reader')
    await isLive(page)
    const focused = () => page.evaluate('document.activeElement.href')
    // The first news of the server may take away the link between finding and focusing it.
    await expect
      .poll(async () => {
        await page.getByRole('link', { name: 'work' }).focus()
        return await focused()
      })
      .toBe(`${console.url}/tasks/${task.id}`)
    const other = await house.declare(['backend-read'], { purpose: 'another one' })
    await page.getByText('another one').waitFor()
    expect(await focused()).toBe(`${console.url}/tasks/${task.id}`)
    for (const one of [task, other]) await one.complete()
  })

  test('everything is reached by the keyboard, in the order in which it is read', async () => {
    const task = await house.declare(['api'])
    const page = await visit('ops', `/tasks/${task.id}`)
    const names: string[] = []
    for (let step = 0; step < 10; step++) {
      await page.keyboard.press('Tab')
      const focused = page.locator(':focus')
      names.push((await focused.getAttribute('aria-label')) ?? (await focused.getAttribute('name')) ?? (await focused.textContent()) ?? '')
    }
    expect(names).toEqual(['Skip to the page', 'Mayfly', 'Now', 'Ledger', 'Revoke', 'Find by id', 'Sign out', 'reason', 'End this task now', 'Why'])
    await task.complete()
  })

  const looks: Readonly<Record<string, BrowserContextOptions>> = {
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    'on a phone': { viewport: { width: 360, height: 740 }, isMobile: true, colorScheme: 'dark' },
  }
  test.each(Object.entries(looks))('no page breaks a rule of accessibility or is wider than the screen, %s', async (look, options) => {
    const [open, stuck] = [await house.declare(['api', 'backend-read'], { purpose: 'x'.repeat(300) }), await house.declare(['backend-read'])]
    await lab.down()
    await stuck.complete(0)
    await house.broker.background.settled()
    const page = await visit('ops', '', options)
    const paths = [
      '',
      `/tasks/${open.id}`,
      `/tasks/${stuck.id}`,
      `/decisions/${open.opened.decision.id}`,
      '/ledger',
      '/ledger?task=x',
      '/ledger/leases',
      '/revoke?agent=bot',
      '/nothing',
      '/signed-out',
    ]
    for (const path of paths) {
      await page.goto(`${console.url}${path}`)
      // Not as a script of the page, which would refuse it.
      await page.evaluate(await readFile(axe, 'utf8'))
      const found = (await page.evaluate('axe.run()')) as { violations: { id: string; nodes: { html: string }[] }[] }
      expect(found.violations.map(({ id, nodes }) => `${path} ${id}: ${nodes.map(({ html }) => html).join(' ')}`)).toEqual([])
      const width = await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
      expect(width, `${path} ${look}`).toBe(0)
    }
    // The pages that say no are errors to the browser.
    complaints.length = 0
    const ground = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    expect(ground).toBe(look === 'light' ? 'rgb(250, 250, 248)' : 'rgb(18, 20, 22)')
    await lab.up()
    await untilDead(house, stuck.id)
    await open.complete()
  })
})
