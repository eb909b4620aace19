import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createClient, type OpenTask } from '../../src/client/client.ts'
import { type AwsSite, inProduction, startAwsSite } from '../support/aws/site.ts'
import { makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'

const catalogueOf = ({ role }: AwsSite): string => `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [bucket, ledger] }
grants:
  bucket: { provider: aws, role: ${role}, max_ttl: 20m, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }] }
  ledger:
    provider: aws
    role: ${role}
    max_ttl: 20m
    allow: [{ actions: [rds-db:connect], resources: ["arn:aws:rds-db:us-east-1:123456789012:dbuser:db-1/reader"] }]
    outlives_revocation: [rds-db:connect]
`

const inFull = '"outlives_revocation":["rds-db:connect"]'

describe('what goes on when a credential is dead', () => {
  let aws: AwsSite
  let store: OpenedStore
  let site: Site
  let broker: RunningBroker
  let task: OpenTask
  let environment: Record<string, string>

  beforeAll(async () => {
    ;[store, aws] = await Promise.all([openEmbedded(), startAwsSite()])
    const { peer, externalId } = aws
    const settings = `region: ${peer.region}, account: "${peer.account}", endpoint: "${peer.url}", external_id: ${externalId}`
    site = await makeSite({ store: store.settings, providers: `  - { name: aws, kind: aws-sts, ${settings} }` })
    await site.write('catalogue.yaml', catalogueOf(aws))
    broker = await site.start({}, await inProduction(aws))
    environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:reader') }
    const bot = createClient({ url: broker.url, token: await site.token('agent:bot') })
    task = await bot.open({
      kind: 'work',
      purpose: 'a look at the ledger',
      grants: [
        { name: 'bucket', parameters: {} },
        { name: 'ledger', parameters: {} },
      ],
    })
  })
  afterAll(async () => {
    await broker.stop()
    await aws.peer.stop()
    await site.remove()
    await store.dispose()
  })

  test('is said to the agent with the credential', () => {
    expect(task.leases.map(({ grant, outlives_revocation }) => [grant, outlives_revocation])).toEqual([
      ['bucket', undefined],
      ['ledger', ['rds-db:connect']],
    ])
  })

  test.each([
    ['a task', () => ['task', 'show', task.id]],
    ['a list of leases', () => ['lease', 'list', '--grant', 'ledger']],
  ])('is said to a reviewer by %s', async (_, args) => {
    const { stdout, status } = await mayfly([...args(), '--json'], environment)
    expect(status).toBe(0)
    expect(JSON.stringify(JSON.parse(stdout))).toContain(inFull)
    const { stdout: table } = await mayfly(args(), environment)
    expect(table).toMatch(/active OUTLIVES +ledger/)
    expect(table).not.toMatch(/active OUTLIVES +bucket/)
  })

  test('is said in full where one lease is shown, and in its history', async () => {
    const { stdout } = await mayfly(['lease', 'show', task.leases[1]!.id], environment)
    expect(stdout).toContain('\ngoes on when it is dead: rds-db:connect\n')
    expect((await mayfly(['lease', 'show', task.leases[0]!.id], environment)).stdout).not.toContain('goes on')
    const { stdout: history } = await mayfly(['ledger', 'list', '--json'], environment)
    expect(JSON.stringify(JSON.parse(history))).toContain(inFull)
  })
})
