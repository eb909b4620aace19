import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { OpenedTask, ReplayView } from '../../src/http/contract.ts'
import { type Answer, type Fleet, heldOf, startFleet, until } from '../support/fleet.ts'
import type { RunningBroker } from '../support/program.ts'
import { stores } from '../support/stores.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('policies that are reloaded at one of two brokers only', () => {
  let fleet: Fleet
  const files = { catalogue: '', policies: '' }

  beforeAll(async () => {
    fleet = await startFleet(2)
    files.catalogue = await readFile(path.join(fleet.site.folder, 'catalogue.yaml'), 'utf8')
    files.policies = await readFile(path.join(fleet.site.folder, 'policies/site.cedar'), 'utf8')
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(() => fleet.stop())

  /** Another name for the agents' group, in both files: whoever goes by one file of each set denies what either set permits. */
  async function rename(group: string): Promise<void> {
    await fleet.site.write('catalogue.yaml', files.catalogue.replaceAll('robots', group))
    await fleet.site.write('policies/site.cedar', files.policies.replaceAll('"robots"', `"${group}"`).replaceAll('@id("robots', `@id("${group}`))
  }

  const activations = (broker: RunningBroker): number => broker.log().split('a policy set is in force').length - 1

  async function reload(broker: RunningBroker): Promise<void> {
    const before = activations(broker)
    broker.process.kill('SIGHUP')
    await until('the new set is in force', async () => (await fetch(`${broker.url}/healthz`)).ok && activations(broker) > before)
  }

  test('decide at each by its own set, under load: every decision says which, and replays to the same answer there', async () => {
    const [reloaded, left] = fleet.brokers as [RunningBroker, RunningBroker]
    const answers: { readonly broker: RunningBroker; readonly answer: Answer<OpenedTask> }[] = []
    let over = false
    async function ask(broker: RunningBroker): Promise<void> {
      for (let round = 0; !over || round < 5; round++) {
        const answer = await fleet.ask(broker, ['api'])
        answers.push({ broker, answer })
        if (answer.status === 201) await fleet.complete(broker, heldOf(answer.body))
      }
    }
    const asking = [reloaded, left, reloaded, left].map(ask)
    for (const group of ['machines', 'robots', 'machines']) {
      await rename(group)
      await reload(reloaded)
    }
    over = true
    await Promise.all(asking)

    expect(
      answers.map(({ answer }) => answer.status).filter((status) => status !== 201),
      'nobody mixes two sets',
    ).toEqual([])
    const digests = (of: RunningBroker) =>
      new Set(answers.filter(({ broker }) => broker === of).map(({ answer }) => answer.body.decision.policy_digest))
    expect([digests(reloaded).size, digests(left).size]).toEqual([2, 1])
    expect(digests(reloaded)).toContain([...digests(left)][0])
    for (const { answer } of answers.slice(-60)) {
      const { id, policy_digest: digest, policies } = answer.body.decision
      const replays = await Promise.all(
        fleet.brokers.map((broker) => fleet.call<ReplayView>(broker, fleet.tokens.ops, 'GET', `/decisions/${id}/replay`)),
      )
      for (const { body } of replays) {
        expect(body.archived).toMatchObject({ policy_digest: digest, outcome: 'permit', policies, same: true })
        expect(body.current.same, 'the set in force agrees only where it is the one that decided').toBe(body.current.policy_digest === digest)
      }
    }
    await rename('robots')
    await reload(reloaded)
  })

  test('decide about a request that was under way by one set as a whole', async () => {
    const [broker] = fleet.brokers as [RunningBroker]
    const body = JSON.stringify({ kind: 'work', purpose: 'slow', duration: '5m', grants: [{ name: 'api' }] })
    const headers = { authorization: `Bearer ${fleet.tokens.bot}`, 'content-type': 'application/json', 'content-length': body.length }
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const asked = request(`${broker.url}/tasks`, { method: 'POST', headers }, (answer) => resolve(answer.resume().statusCode))
      /** The caller is known by its headers; the body comes after other policies are in force. */
      async function send(): Promise<void> {
        await promisify((part: string, done: () => void) => asked.write(part, done))(body.slice(0, 10))
        await fleet.active(broker, 'nothing')
        await rename('machines')
        await reload(broker)
        asked.end(body.slice(10))
      }
      asked.on('error', reject)
      send().catch(reject)
    })
    expect(status).toBe(201)
    await rename('robots')
    await reload(broker)
  })

  test('do not end a broker that is stopping, in the middle of what it has to finish', async () => {
    const broker = await fleet.site.start()
    await fleet.lab.next('put', 'held')
    const asked = fleet.ask(broker, ['crm'])
    await fleet.lab.hanging('put')
    const stopped = broker.stop()
    await until(
      'it refuses to be asked',
      async () =>
        await fetch(`${broker.url}/healthz`).then(
          () => false,
          () => true,
        ),
    )

    broker.process.kill('SIGHUP')
    await fleet.lab.release()

    const { status, body } = await asked
    expect(status).toBe(201)
    expect(await stopped).toBe(0)
    expect((await fleet.complete(fleet.brokers[1]!, heldOf(body))).status).toBe(200)
  })
})
