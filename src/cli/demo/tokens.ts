import { type Client, MayflyProblem, type OpenTask } from '../../client/client.ts'
import type { ResourceServer } from './resource-server.ts'
import { anything, is, lifeOf, type Show } from './steps.ts'

/** A token that is used at a resource server, until its task ends. */
export async function showTokens(agent: Client, operator: Client, server: ResourceServer, show: Show): Promise<void> {
  const declaration = { kind: 'invoice-sync', purpose: 'mayfly demo', duration: '5m' }
  const open = async (): Promise<OpenTask> => show.task(await agent.open({ ...declaration, grants: [{ name: 'invoices-api' }] }))
  const says = async (status: Promise<number>): Promise<string> => `resource server answers ${await status}`
  let first!: OpenTask
  await show.step('agent invoice-bot declares a task', anything, async () => {
    first = await open()
    return `${first.id}, permitted by ${first.decision.policies.join(', ')}`
  })
  const lease = first.leases[0]!
  const token = lease.credential.secret() ?? ''
  await show.step(`it uses its credential (${lease.grant}, ${lifeOf(lease)})`, is('200'), () => says(server.read(token)))
  const exporting = await first.add({ name: 'invoices-export', parameters: { customer: 'acme' }, ttl: '1m' })
  const narrowed = exporting.credential.secret() ?? ''
  await show.step('it exports the customer it asked for', is('200'), () => says(server.export(narrowed, 'acme')))
  await show.step('it tries another customer with that credential', is('403'), () => says(server.export(narrowed, 'umbrella')))
  await show.step('it asks for what the policy refuses', is('denied'), async () => {
    const asked = { name: 'invoices-export', parameters: { customer: 'initech' }, ttl: '1m' }
    return await refusalOf(agent.open({ ...declaration, grants: [asked] }))
  })
  await show.step('it completes the task', is('completed'), async () => {
    const closed = await first.complete()
    return `${closed.task.state}, ${closed.leases.map(({ state, evidence }) => `${state} (${evidence?.statement ?? 'no evidence'})`).join(', ')}`
  })
  await show.step('it tries the credential again', is('401'), () => says(server.read(token)))
  const second = await open()
  const stolen = second.leases[0]!.credential.secret() ?? ''
  await show.step('an operator ends another task by its id', is('revoked'), async () => {
    const closed = await operator.revokeTask(second.id, 'the demo says so')
    return `${closed.task.state} by ${closed.task.ended_by ?? '?'}`
  })
  await show.step('its credential is dead as well', is('401'), () => says(server.read(stolen)))
}

async function refusalOf(asked: Promise<OpenTask>): Promise<string> {
  try {
    await (await asked).complete()
    return 'permitted'
  } catch (error) {
    if (!(error instanceof MayflyProblem)) throw error
    return `${error.code} (${error.decision ?? 'no decision'})`
  }
}
