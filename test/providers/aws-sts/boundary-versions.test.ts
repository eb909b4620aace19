import { CreatePolicyVersionCommand, ListPolicyVersionsCommand, SetDefaultPolicyVersionCommand } from '@aws-sdk/client-iam'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Carrier, createCarrier } from '../../../src/providers/aws-sts/kill-list/carrier.ts'
import { createIam } from '../../../src/providers/aws-sts/kill-list/iam.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import { bound } from '../../support/aws/deny-site.ts'
import type { AwsFault } from '../../support/aws/faults.ts'
import { type AwsSite, policyOf, startAwsSite } from '../../support/aws/site.ts'

const patient = new AbortController().signal
let site: AwsSite
let boundary: string
/** Requests that were looked at already. */
let told: number

beforeEach(async () => {
  told = 0
  site = await startAwsSite()
  boundary = await bound(site)
  for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
})
afterEach(async () => {
  await site.peer.stop()
  vi.unstubAllEnvs()
})

/** The boundary as a broker has it that has just started. */
function connect(): Carrier {
  const { region, account, url } = site.peer
  const settings = awsSettings.parse({ region, account, endpoint: url, iam_endpoint: url, kill_list: {} })
  return createCarrier(
    createIam('aws', settings, () => {}),
    settings,
    settings.kill_list!,
    site.role,
  )
}

let written = 0
const document = (): string =>
  policyOf({ Effect: 'Deny', Action: '*', Resource: '*', Condition: { StringLike: { 'aws:userid': `*:${(written += 1)}` } } })

async function write(carrier: Carrier): Promise<string> {
  const text = document()
  await carrier.write(text, patient)
  expect(await carrier.read(patient), 'what was written is the default').toBe(text)
  return text
}

async function writeAndTidy(carrier: Carrier): Promise<void> {
  const text = await write(carrier)
  await carrier.tidy(patient)
  expect(await carrier.read(patient), 'what was written is still there').toBe(text)
}

async function versions(): Promise<string[]> {
  const { Versions = [] } = await site.owner.iam.send(new ListPolicyVersionsCommand({ PolicyArn: boundary }))
  return Versions.map(({ VersionId }) => VersionId!).toReversed()
}

/** What the brokers asked of IAM to write and to clear up, since it was asked last. */
function asked(): string[] {
  const { calls, root } = site.peer
  const since = calls.slice(told)
  told = calls.length
  return since
    .filter(({ service, key, action }) => service === 'iam' && key !== root.accessKeyId && !action.startsWith('Get'))
    .map(({ action }) => action)
}

describe('the versions of a boundary', () => {
  test('are one, and another while it is written: two requests for a document, and one more for the first of a broker', async () => {
    const carrier = connect()
    asked()
    await writeAndTidy(carrier)
    expect(asked()).toEqual(['CreatePolicyVersion', 'ListPolicyVersions', 'DeletePolicyVersion'])
    for (let next = 3; next <= 9; next += 1) {
      await writeAndTidy(carrier)
      expect(asked()).toEqual(['CreatePolicyVersion', 'DeletePolicyVersion'])
      expect(await versions()).toEqual([`v${next}`])
    }
  })

  test('have room for two brokers in turn, each of which clears away its own, for two requests a document', async () => {
    const [one, other] = [connect(), connect()]
    await writeAndTidy(one)
    await writeAndTidy(other)
    asked()
    for (let turn = 0; turn < 5; turn += 1) {
      await writeAndTidy(one)
      await writeAndTidy(other)
    }
    const made = asked()
    expect(made.filter((action) => action === 'CreatePolicyVersion')).toHaveLength(10)
    expect(made.filter((action) => action === 'DeletePolicyVersion')).toHaveLength(10)
    expect(made).toHaveLength(20)
    expect((await versions()).length).toBe(2)
  })

  test('that brokers left which died before they cleared up are cleared away by the next, behind its first document', async () => {
    for (let death = 0; death < 3; death += 1) await write(connect())
    expect(await versions()).toEqual(['v1', 'v2', 'v3', 'v4'])
    asked()
    await writeAndTidy(connect())
    expect(asked()).toEqual(['CreatePolicyVersion', 'ListPolicyVersions', ...Array<string>(4).fill('DeletePolicyVersion')])
    expect(await versions()).toEqual(['v5'])
  })

  test('that are five make way for a document, whoever made them, and what was denied stays so meanwhile', async () => {
    const carrier = connect()
    await writeAndTidy(carrier)
    for (let made = 0; made < 4; made += 1)
      await site.owner.iam.send(new CreatePolicyVersionCommand({ PolicyArn: boundary, PolicyDocument: document() }))
    asked()
    await write(carrier)
    expect(asked()).toEqual(['CreatePolicyVersion', 'ListPolicyVersions', ...Array<string>(4).fill('DeletePolicyVersion'), 'CreatePolicyVersion'])
    expect(await versions()).toEqual(['v2', 'v7'])
    await carrier.tidy(patient)
    expect(await versions()).toEqual(['v7'])
  })

  test('stay while somebody has made one of them the default again, and the next document is above it', async () => {
    const carrier = connect()
    await writeAndTidy(carrier)
    await write(carrier)
    await site.owner.iam.send(new SetDefaultPolicyVersionCommand({ PolicyArn: boundary, VersionId: 'v2' }))
    await carrier.tidy(patient)
    expect(await versions()).toEqual(['v2', 'v3'])
    await writeAndTidy(carrier)
    await writeAndTidy(carrier)
    expect((await versions()).at(-1)).toBe('v5')
  })

  const faults: readonly AwsFault[] = ['resets', 'loses the answer', 'fails', 'conflicts', 'throttles']
  test.each(
    faults.flatMap((fault) =>
      (['DeletePolicyVersion', 'ListPolicyVersions', 'CreatePolicyVersion'] as const).map((action) => [action, fault] as const),
    ),
  )('are one again behind the next document where %s %s, and that document finds room', async (action, fault) => {
    const carrier = connect()
    // Behind the first it asks what there is; behind any other it knows.
    if (action !== 'ListPolicyVersions') await writeAndTidy(carrier)
    site.peer.faults.next(action, fault)
    await expect(writeAndTidy(carrier)).rejects.toMatchObject({ name: 'ProviderError' })
    expect(site.peer.faults.pending).toBe(0)
    asked()
    await writeAndTidy(carrier)
    expect(
      asked().filter((asked) => asked === 'CreatePolicyVersion'),
      'no request in vain',
    ).toHaveLength(1)
    expect(await versions()).toHaveLength(1)
  })

  test('leave room for three documents whose clean-up failed one after the other', async () => {
    const carrier = connect()
    await writeAndTidy(carrier)
    site.peer.faults.next('DeletePolicyVersion', 'fails')
    site.peer.faults.next('ListPolicyVersions', 'fails', 2)
    for (let failure = 0; failure < 3; failure += 1) await expect(writeAndTidy(carrier)).rejects.toMatchObject({ fault: 'unavailable' })
    asked()
    await writeAndTidy(carrier)
    expect(asked().filter((action) => action === 'CreatePolicyVersion')).toHaveLength(1)
    expect(await versions()).toEqual(['v6'])
  })
})
