import { GetObjectCommand } from '@aws-sdk/client-s3'
import { AssumeRoleCommand, GetScopedCredentialsCommand, STSClient } from '@aws-sdk/client-sts'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { test } from 'vitest'
import { connect } from '../src/ledger/connect.ts'
import { killLists as keptLists } from '../src/ledger/kill-lists.ts'
import { roleSessions } from '../src/ledger/role-sessions.ts'
import { connectAws } from '../src/providers/aws-sts/aws-sts.ts'
import { compile, compileParent } from '../src/providers/aws-sts/compile.ts'
import { type AwsGrant, awsGrant } from '../src/providers/aws-sts/grant.ts'
import { killList, type Session, type World } from '../src/providers/aws-sts/kill-list/ladder.ts'
import { durationOf, newSessionName, sourceIdentityOf, wholeSecond } from '../src/providers/aws-sts/session.ts'
import { awsSettings } from '../src/providers/aws-sts/settings.ts'
import type { Reservation } from '../src/providers/provider.ts'
import { reservationOf } from '../test/providers/reservation.ts'
import { type AwsClients, clientsOf } from '../test/support/aws/clients.ts'
import { externalId, taskRole } from '../test/support/aws/deployed.ts'
import { freeze, thaw } from '../test/support/freeze.ts'
import { startLab } from '../test/support/lab.ts'
import { awsModules, modulesOf } from '../test/support/loaded-modules.ts'
import { announceMint, preparePolicy } from '../test/support/minting.ts'
import type { RunningBroker, Site } from '../test/support/program.ts'
import { openDatabase } from '../test/support/stores.ts'
import { type Account, allow, awsSiteOf, deployAccount, settingsOf } from './aws-stage.ts'
import { keep, ratesOf, spread, tell } from './figures.ts'
import { type Generators, issues, type Opened, openedOf, startGenerators, timed } from './load.ts'
import { residentMegabytes, tokensOf } from './stage.ts'

/** Everything that the tables about AWS need. */
interface Stage {
  readonly aws: Account
  readonly owner: postgres.Sql
  readonly site: Site
  readonly broker: RunningBroker
  readonly generators: Generators
  readonly bots: readonly string[]
}

/** A tenth of everything, to see whether it works. */
const quick = process.env['BENCH_QUICK'] === 'yes'
const scaled = (count: number): number => (quick ? Math.ceil(count / 10) : count)

test('the bench of AWS', async () => {
  const [store, lab, aws] = await Promise.all([openDatabase(), startLab(), deployAccount()])
  // What the broker's process and this one sign with.
  Object.assign(process.env, aws.platform)
  await sessions(aws)
  const site = await awsSiteOf(aws, store.settings, lab)
  const stage: Stage = {
    aws,
    owner: postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} }),
    site,
    broker: await site.start(),
    generators: startGenerators(),
    bots: (await tokensOf(site)).bots,
  }
  await declarations(stage)
  await ends(stage)
  await container(stage)
  await commands(stage)
  killLists()
  tell('AWS: resident memory at the end', { megabytes: residentMegabytes(stage.broker.process.pid!) })

  if (!quick) keep('results-aws.json', 'broker, Postgres, our own AWS and load share the machine; Postgres is as durable as it is by default')
  stage.generators.stop()
  await stage.owner.end()
  await stage.broker.stop()
  await site.remove()
  await Promise.all([aws.peer.stop(), lab.stop(), store.dispose()])
})

/**
 * What the provider makes of an announced lease beside the same calls of the SDK with the same policies. Its name was taken with the announcement, which
 * is not part of `minted`; so the two are also told together, beside an announcement without a name and the raw calls. All in this process, with AWS and
 * Postgres in others; in turns, so that what else the machine does falls on each.
 */
async function sessions(aws: Account): Promise<void> {
  const store = await openDatabase()
  const ledger = await connect(store.settings)
  await preparePolicy(ledger)
  const names = { taken: 0 }
  const taking = roleSessions(ledger)
  const kept: typeof taking = { ...taking, reserve: (...asked) => ((names.taken += 1), taking.reserve(...asked)) }
  const surroundings = { publicUrl: 'https://broker.example.com', keys: '/nowhere', clock: Date.now, sessions: kept, killLists: keptLists(ledger) }
  const grant = awsGrant.parse({ role: taskRole, allow })
  const raw = await rawCalls(aws)

  for (const [mode, what] of [
    ['direct', 'AWS: a session'],
    ['children', 'AWS: a session and its child'],
  ] as const) {
    const provider = await connectAws('aws', awsSettings.parse(settingsOf(aws, mode, { kill_list: {} })), surroundings)
    const mint = (reservation: Reservation<AwsGrant>) => provider.mint(reservation, async () => {}, AbortSignal.timeout(10_000))
    const announce = async (pool?: readonly string[]): Promise<Reservation<AwsGrant>> => {
      const { id, taskId, reservedAt, expiresAt, handles } = await announceMint(ledger, undefined, pool)
      return reservationOf(grant, { lease: id, task: taskId, issuedAt: reservedAt, expiresAt, parameters: {}, handles })
    }
    const announced = async (count: number) => (await timed(16, Array.from({ length: count }), () => announce(grant.roles))).results
    await timed(8, await announced(scaled(200)), mint)
    await timed(8, await announced(scaled(200)), raw[mode])
    for (const inFlight of [1, 8]) {
      const count = scaled(inFlight === 1 ? 100 : 240)
      const seconds = { minted: 0, raw: 0, both: 0, bothRaw: 0 }
      names.taken = 0
      for (let turn = 0; turn < 4; turn++) {
        const reservations = await announced(count)
        seconds.minted += (await timed(inFlight, reservations, mint)).seconds
        seconds.raw += (await timed(inFlight, reservations, raw[mode])).seconds
        seconds.both += (await timed(inFlight, reservations, async () => await mint(await announce(grant.roles)))).seconds
        seconds.bothRaw += (await timed(inFlight, reservations, async () => await raw[mode](await announce()))).seconds
      }
      const each = (total: number): number => (total * 1_000) / (4 * count)
      tell(`${what}, ${inFlight} in flight`, {
        'minted under the name it was announced with, ms': each(seconds.minted),
        'raw, ms': each(seconds.raw),
        ratio: seconds.minted / seconds.raw,
        'names not taken with the announcement': names.taken,
      })
      tell(`${what} and its announcement, ${inFlight} in flight`, {
        'announced with a name and minted, ms': each(seconds.both),
        'announced without and raw, ms': each(seconds.bothRaw),
        ratio: seconds.both / seconds.bothRaw,
      })
    }
  }
  await ledger.close()
  await store.dispose()
}

/** The same calls as the provider makes, as the same minter, without a broker. */
async function rawCalls({ peer, platform }: Account) {
  const [AccessKeyId, SecretAccessKey, SessionToken] = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'].map(
    (name) => platform[name],
  )
  const asPlatform = clientsOf(peer, { AccessKeyId, SecretAccessKey, SessionToken, Expiration: undefined })
  const own = { RoleArn: `arn:aws:iam::${peer.account}:role/mayfly-minter`, RoleSessionName: 'mayfly-minter', ExternalId: externalId }
  const { Credentials: minter } = await asPlatform.sts.send(new AssumeRoleCommand(own))
  const { sts } = clientsOf(peer, minter!)
  const assume = (Policy: string, { agent }: Reservation, life: number) =>
    sts.send(
      new AssumeRoleCommand({
        RoleArn: `arn:aws:iam::${peer.account}:role/${taskRole}`,
        RoleSessionName: newSessionName(),
        SourceIdentity: sourceIdentityOf(agent),
        ExternalId: externalId,
        Policy,
        DurationSeconds: durationOf(life),
      }),
    )
  const grant = awsGrant.parse({ role: taskRole, allow })
  const lifeOf = ({ issuedAt, expiresAt }: Reservation): number => expiresAt.getTime() - issuedAt.getTime()
  return {
    direct: (reservation: Reservation) => assume(compile(grant, {}, wholeSecond(reservation.expiresAt.getTime())), reservation, lifeOf(reservation)),
    async children(reservation: Reservation) {
      const { Credentials: given } = await assume(
        compileParent(grant, {}, wholeSecond(reservation.expiresAt.getTime())),
        reservation,
        lifeOf(reservation),
      )
      const credentials = { accessKeyId: given!.AccessKeyId!, secretAccessKey: given!.SecretAccessKey!, sessionToken: given!.SessionToken! }
      const asSession = new STSClient({ region: peer.region, endpoint: peer.url, credentials, requestHandler: sts.config.requestHandler })
      const Policy = compile(grant, {}, wholeSecond(reservation.issuedAt.getTime() + 120_000))
      return await asSession.send(new GetScopedCredentialsCommand({ Policy, DurationSeconds: 120 }))
    },
  }
}

/** Whole declarations of a task with one session, at a broker: what an agent waits for. */
async function declarations({ generators, broker, bots }: Stage): Promise<void> {
  const at = { targets: [broker.url], keep: true }
  for (const grant of ['plain', 'child']) {
    await generators.run({ ...at, inFlight: 8, requests: issues(bots, grant), count: scaled(300) })
    for (const inFlight of [1, 8]) {
      const run = await generators.run({ ...at, inFlight, requests: issues(bots, grant), count: scaled(inFlight === 1 ? 300 : 600) })
      tell(`AWS: declare, ${grant === 'plain' ? 'direct' : 'children'}, ${inFlight} in flight, ms`, ratesOf([run], '201'))
    }
  }
}

/** A task, and its session where that is watched. */
interface Held {
  readonly task: Opened
  readonly s3: AwsClients['s3'] | undefined
}

/** One end in five is watched, with a look each 50 ms: more would measure the looks. */
const watchedEach = 5
const betweenLooks = 50

/**
 * Task ends at 100 a second. From the request to complete until S3 answers 403 to the session, from outside: a list is begun once in 1.2 s, so
 * that what an end waits for is the worst of it. As many live as the list of one role has room for; once the first cohort is closed the others are opened.
 */
async function ends(stage: Stage): Promise<void> {
  const { aws, broker, owner } = stage
  const [count, ahead] = [scaled(1_000), scaled(800)]
  await Promise.all((await open(stage, scaled(40))).map((task) => complete(broker, task)))
  const living = await hold(stage, ahead)
  const before: Readonly<Record<string, number>> = { ...(await aws.peer.calls()), documents: await documents(owner) }
  const started = performance.now()

  const ending: Promise<{ answered: number; status: number }>[] = []
  const refused: Promise<number>[] = []
  let others: Promise<number> | undefined
  for (let n = 0; n < count; n++) {
    await pause(started + n * 10 - performance.now())
    if (n === scaled(450)) others = hold(stage, count - ahead).then((held) => living.push(...held))
    if (living.length === 0) await others
    const { task, s3 } = living.shift()!
    if (s3) refused.push(untilRefused(s3))
    ending.push(complete(broker, task))
  }
  const seconds = (performance.now() - started) / 1_000
  const ended = await Promise.all(ending)
  const times = await Promise.all(refused)
  const after: Readonly<Record<string, number>> = { ...(await aws.peer.calls()), documents: await documents(owner) }

  const made = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0)
  const iam = Object.keys(after)
    .filter((name) => name.startsWith('iam '))
    .reduce((sum, name) => sum + made(name), 0)
  const [row] = await owner<{ revoked: number; sacrificed: number }[]>`
    select count(*) filter (where state = 'revoked')::int as revoked, count(*) filter (where cause = 'limit')::int as sacrificed from leases where provider = 'aws'`
  tell('AWS: task end to refused, 100 ends a second, ms', { watched: times.length, ...spread(times), most: Math.max(...times) })
  tell('AWS: complete answered, 100 ends a second, ms', {
    ...spread(ended.map(({ answered }) => answered)),
    'not ended yet': ended.filter(({ status }) => status !== 200).length,
  })
  tell('AWS: 1,000 task ends, 100 a second', {
    ends: count,
    'a second': count / seconds,
    documents: (made('documents') * 1_000) / count,
    'calls of IAM, with those that clear old versions away': (iam * 1_000) / count,
    'calls of STS for canaries': ((made('sts DecodeAuthorizationMessage') + made('sts AssumeRole') - (count - ahead)) * 1_000) / count,
    revoked: row!.revoked,
    sacrificed: row!.sacrificed,
  })
}

/** Documents that a kill list was written with, however often one was asked for. */
async function documents(owner: postgres.Sql): Promise<number> {
  const [row] = await owner<{ count: number }[]>`select count(*)::int as count from entries where kind = 'kill_list.written'`
  return row!.count
}

async function open({ generators, broker, bots }: Stage, count: number): Promise<Opened[]> {
  const run = await generators.run({ targets: [broker.url], inFlight: 4, requests: issues(bots, 'bucket'), count, keep: true })
  ratesOf([run], '201')
  return openedOf(run)
}

/** Opens tasks, and a connection to S3 for each whose end is watched. */
async function hold(stage: Stage, count: number): Promise<Held[]> {
  const opened = await open(stage, count)
  return (
    await timed(4, [...opened.entries()], async ([index, task]) => ({ task, s3: index % watchedEach === 0 ? await working(stage, task) : undefined }))
  ).results
}

/** A client with the session of a task, which has been seen to let it in. */
async function working({ aws }: Stage, task: Opened): Promise<AwsClients['s3']> {
  const { access_key_id: AccessKeyId, secret_access_key: SecretAccessKey, session_token: SessionToken } = sessionOf(task)
  const { s3 } = clientsOf(aws.peer, { AccessKeyId, SecretAccessKey, SessionToken, Expiration: undefined })
  if ((await look(s3)) !== 200) throw new Error('a session that is alive was refused')
  return s3
}

interface AwsCredential {
  readonly access_key_id: string
  readonly secret_access_key: string
  readonly session_token: string
}

const sessionOf = (task: Opened): AwsCredential => (task as unknown as { leases: [{ credential: AwsCredential }] }).leases[0].credential

/** What a session gets for an object of its customer. */
async function look(s3: AwsClients['s3']): Promise<number> {
  try {
    const { Body, $metadata } = await s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' }))
    await Body!.transformToByteArray()
    return $metadata.httpStatusCode!
  } catch (error) {
    const { $metadata } = error as { $metadata?: { httpStatusCode?: number } }
    if ($metadata?.httpStatusCode === 403) return 403
    throw error
  }
}

/** Milliseconds from now until S3 has answered 403. */
async function untilRefused(s3: AwsClients['s3']): Promise<number> {
  const started = performance.now()
  while ((await look(s3)) !== 403) await pause(betweenLooks)
  const took = performance.now() - started
  s3.destroy()
  return took
}

/** Completes a task as the client does: it waits for the end. */
async function complete(broker: RunningBroker, { task, task_token }: Opened): Promise<{ answered: number; status: number }> {
  const started = performance.now()
  const headers = { authorization: `Bearer ${task_token}`, 'content-type': 'application/json' }
  const { status, body } = await fetch(`${broker.url}/tasks/${task.id}/complete`, { method: 'POST', headers, body: '{}' })
  await body?.cancel()
  return { answered: performance.now() - started, status }
}

/** The endpoint of `mayfly aws serve`, asked as the SDKs do; then once more while the broker and AWS stand still. */
async function container({ aws, broker, site }: Stage): Promise<void> {
  const environment = { ...process.env, MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('agent:bot-0') }
  const command = ['aws', 'serve', '--kind', 'work', '--grant', 'plain', '--json']
  const serving = spawn(process.execPath, [program, ...command], { env: environment, stdio: ['ignore', 'pipe', 'inherit'] })
  const [printed] = (await once(serving.stdout, 'data')) as [Buffer]
  const variables = JSON.parse(printed.toString()) as Record<string, string>
  const uri = variables['AWS_CONTAINER_CREDENTIALS_FULL_URI']!
  const token = await readFile(variables['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE']!, 'utf8')
  const ask = () => credentialsOf(uri, token)
  const asks = async (inFlight: number, count: number): Promise<number[]> => (await timed(inFlight, Array.from({ length: count }), ask)).results

  await asks(4, scaled(500))
  const before = await aws.peer.calls()
  for (const inFlight of [1, 8]) {
    const times = await asks(inFlight, scaled(2_000))
    const calls = sumOf(await aws.peer.calls()) - sumOf(before)
    tell(`AWS: container endpoint, ${inFlight} in flight, ms`, {
      asked: times.length,
      ...spread(times),
      most: Math.max(...times),
      'calls of AWS': calls,
    })
  }
  freeze(broker.process)
  freeze(aws.peer.process)
  const frozen = await asks(1, scaled(1_000)).finally(() => {
    thaw(aws.peer.process)
    thaw(broker.process)
  })
  tell('AWS: container endpoint, broker and AWS frozen, ms', { asked: frozen.length, ...spread(frozen), most: Math.max(...frozen) })
  const closed = once(serving, 'close')
  serving.kill('SIGTERM')
  await closed
}

const program = path.join(import.meta.dirname, '../dist/cli/mayfly.js')

const sumOf = (calls: Readonly<Record<string, number>>): number => Object.values(calls).reduce((sum, count) => sum + count, 0)

/** Milliseconds until the credentials are there. The endpoint ends each connection with its answer, so that the next is another. */
function credentialsOf(uri: string, authorization: string): Promise<number> {
  const started = performance.now()
  return new Promise((resolve, reject) => {
    request(uri, { headers: { authorization }, agent: false }, (response) => {
      void text(response).then((body) => {
        if (response.statusCode !== 200 || !body.includes('AccessKeyId')) return reject(new Error(`the endpoint answered ${response.statusCode}`))
        resolve(performance.now() - started)
      }, reject)
    })
      .on('error', reject)
      .end()
  })
}

/** What commands load that do not speak to AWS themselves, and how long they take with all that they do load. */
async function commands({ broker, site }: Stage): Promise<void> {
  const environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:ops') }
  const bot = { ...environment, MAYFLY_TOKEN: await site.token('agent:bot-0') }
  const each = { help: [['task', 'list', '--help'], environment], list: [['task', 'list', '--json'], environment] } as const
  const loaded: Record<string, number> = {}
  const milliseconds: Record<string, number> = {}
  for (const [name, [args, as]] of Object.entries({
    ...each,
    'aws process': [['aws', 'process', '--kind', 'work', '--grant', 'plain'], bot] as const,
  })) {
    const started = performance.now()
    const { status, stderr, modules } = await modulesOf(args, as)
    if (status !== 0) throw new Error(stderr)
    milliseconds[`${name}, ms`] = performance.now() - started
    loaded[name] = awsModules(modules).length
  }
  tell('AWS: modules of its SDK loaded by the command line', { ...loaded, most: Math.max(...Object.values(loaded)), ...milliseconds })
}

/** Kill lists that are as full as they get: by names, by cohorts with their survivors, and with each step of the ladder taken. */
function killLists(): void {
  const many = scaled(300)
  const drawn = (world: World): number[] => {
    for (let warm = 0; warm < many / 10; warm++) killList(world)
    return Array.from({ length: many }, () => {
      const started = performance.now()
      killList(world)
      return performance.now() - started
    })
  }
  const cohorts = (count: number, denied: number, living: number): Pick<World, 'denied' | 'living'> => ({
    denied: Array.from({ length: count * denied }, (_, index) => sessionAt(index % count, index, index)),
    living: Array.from({ length: count * living }, (_, index) => sessionAt(index % count, 30_000 + index, index)),
  })
  const full = worldOf({ denied: cohorts(1, 440, 0).denied, living: cohorts(1, 0, 1_000).living })
  const survivors = worldOf(cohorts(12, 400, 30))
  for (const [world, rung] of [
    [full, 1],
    [survivors, 1],
  ] as const) {
    const { rung: took } = killList(world)
    if (took !== rung) throw new Error(`a list of step ${rung} was to be drawn, and took step ${took}`)
  }
  const times = [...drawn(full), ...drawn(survivors)]
  tell('AWS: a full kill list drawn, ms', { characters: killList(full).size, ...spread(times), most: Math.max(...times) })

  const climbs: Record<string, number> = {}
  const all: number[] = []
  for (const [rung, world] of [
    [2, worldOf({ ...cohorts(1, 800, 300), open: cohortAt(0) })],
    [4, worldOf(cohorts(12, 200, 60))],
    [5, worldOf(cohorts(1_500, 1, 1))],
    [6, worldOf({ ...cohorts(1_500, 1, 1), denied: cohorts(1_500, 1, 1).denied.map(({ name, earliest }) => ({ name, earliest })) })],
  ] as const) {
    const { rung: took } = killList(world)
    if (took !== rung) throw new Error(`a list of step ${rung} was to be drawn, and took step ${took}`)
    const took99 = drawn(world)
    all.push(...took99)
    climbs[`step ${rung} p99`] = spread(took99).p99
  }
  tell('AWS: the whole ladder climbed, ms', { ...climbs, ...spread(all), most: Math.max(...all) })
}

const noon = Date.UTC(2026, 10, 25, 12)

const base36 = (value: number, length: number): string => value.toString(36).padStart(length, '0')
const cohortAt = (index: number): string => base36(index, 3)

/** @param age seconds after noon at which it was issued, about */
const sessionAt = (cohort: number, number: number, age: number): Session => ({
  name: cohortAt(cohort) + base36(number, 5),
  earliest: new Date(noon + age * 1_000 - 60_000),
  latest: new Date(noon + age * 1_000 + 60_000),
})

const worldOf = (given: Partial<World>): World => ({
  denied: [],
  living: [],
  open: 'zzz',
  canaries: Array.from({ length: 8 }, (_, back) => `@${4_000 - back}`),
  killed: [],
  capacity: 6_144,
  base: [{ Effect: 'Allow', Action: '*', Resource: '*' }],
  ...given,
})
