import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { describe, expect, test } from 'vitest'
import { parseAllDocuments, parse } from 'yaml'
import { z } from 'zod'
import { connect } from '../src/ledger/connect.ts'
import { archivePolicySet } from '../src/ledger/policy-sets.ts'
import { migratePostgres } from '../src/ledger/postgres.ts'
import { mayfly } from './support/program.ts'
import { openDatabase, stores } from './support/stores.ts'

const root = path.join(import.meta.dirname, '..')
const read = (file: string): Promise<string> => readFile(path.join(root, file), 'utf8')

/** A tag that says which: never none, never `latest`. */
const Pinned = z.string().regex(/^[\w./-]+:(?!latest$)[\w.-]*\d[\w.-]*$/)

const Healthcheck = z.strictObject({
  test: z.array(z.string()).min(2),
  interval: z.string(),
  timeout: z.string(),
  retries: z.int(),
  start_period: z.string(),
})

const Contained = {
  image: Pinned,
  read_only: z.literal(true),
  cap_drop: z.tuple([z.literal('ALL')]),
  security_opt: z.tuple([z.literal('no-new-privileges:true')]),
  mem_limit: z.string(),
  pids_limit: z.int(),
  volumes: z.array(z.string()),
  tmpfs: z.array(z.string()),
}

const Hardened = {
  ...Contained,
  restart: z.literal('unless-stopped'),
  secrets: z.array(z.string()).min(1),
  healthcheck: Healthcheck,
}

/** What is there for development alone: it starts where it is asked for, and stays down when it ends. */
const Passing = {
  ...Contained,
  profiles: z.tuple([z.literal('vault')]),
  restart: z.literal('no'),
  entrypoint: z.tuple([z.enum(['sh', 'bash']), z.literal('-euc'), z.string()]),
}

const ports = z.array(z.string().regex(/^127\.0\.0\.1:\d+:\d+$/))
const ofEntryPoint = z.array(z.enum(['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID']))
const Healthy = z.strictObject({ condition: z.literal('service_healthy') })

const Compose = z.strictObject({
  name: z.literal('mayfly'),
  services: z.strictObject({
    broker: z.strictObject({
      ...Hardened,
      build: z.strictObject({ context: z.literal('.'), dockerfile: z.literal('deploy/Dockerfile') }),
      user: z.string().regex(/^[1-9]\d+:[1-9]\d+$/),
      // What a broker takes to finish what it has begun.
      stop_grace_period: z.string().regex(/^(3[6-9]|[4-9]\d)s$/),
      ports,
      depends_on: z.strictObject({ postgres: Healthy }),
    }),
    postgres: z.strictObject({
      ...Hardened,
      cap_add: ofEntryPoint,
      environment: z.strictObject({
        POSTGRES_USER: z.string(),
        POSTGRES_DB: z.string(),
        POSTGRES_PASSWORD_FILE: z.string().startsWith('/run/secrets/'),
      }),
    }),
    openbao: z.strictObject({ ...Passing, user: z.literal('0:0'), ports, healthcheck: Healthcheck }),
    ledger: z.strictObject({
      ...Passing,
      cap_add: ofEntryPoint,
      ports,
      environment: z.strictObject({ POSTGRES_DB: z.literal('ledger') }),
      healthcheck: Healthcheck,
    }),
    'vault-setup': z.strictObject({
      ...Passing,
      build: z.strictObject({ context: z.literal('deploy/vault') }),
      user: z.literal('0:0'),
      environment: z.record(z.string(), z.string()),
      depends_on: z.strictObject({ openbao: Healthy, ledger: Healthy }),
    }),
  }),
  volumes: z.record(z.string(), z.strictObject({})),
  secrets: z.record(z.string(), z.strictObject({ file: z.string().startsWith('./secrets/') })),
})

describe('compose.yaml', () => {
  test('runs a hardened broker beside a hardened Postgres, reachable from this machine alone', async () => {
    const compose = Compose.parse(parse(await read('compose.yaml'), { strict: true, uniqueKeys: true }))
    const { broker, postgres: store } = compose.services
    expect(Object.keys(compose.secrets).toSorted()).toEqual([...broker.secrets, ...store.secrets].toSorted())
  })

  test('sets up what is for development with the files that production is set up with', async () => {
    const { services, volumes } = Compose.parse(parse(await read('compose.yaml')))
    const mounted = Object.values(services).flatMap((service) => service.volumes)
    for (const [source] of mounted.map((mount) => mount.split(':'))) {
      if (source!.startsWith('./')) await stat(path.join(root, source!))
      else expect(Object.keys(volumes)).toContain(source)
    }
    const setup = services['vault-setup']
    expect(setup.entrypoint[2]).toMatch(/ exec \/deploy\/vault\/setup\.sh$/)
    // Of what its environment may say, setup.sh and the two programs under it know everything.
    const known = [...(await read('deploy/vault/setup.sh')).matchAll(/\b(?:BAO|PG|CONNECTION|BROKER)_?[A-Z_]+\b/g)].map(([name]) => name)
    for (const name of Object.keys(setup.environment)) expect(known).toContain(name)
    const [images, own] = [Object.values(services).map(({ image }) => image), await read('deploy/vault/Dockerfile')]
    for (const [, image] of own.matchAll(/^FROM (\S+)/gm)) expect(images).toContain(image)
  })

  test('is not the place of any secret', async () => {
    expect(await read('compose.yaml')).not.toMatch(/PASSWORD: |postgres:\/\/\w+:(?!%s)/)
    expect(await read('.gitignore')).toMatch(/^secrets\/$/m)
  })
})

describe('the Dockerfile', () => {
  test('ends in a pinned image without a shell, as nobody in particular, with all that the program reads', async () => {
    const instructions = (await read('deploy/Dockerfile'))
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(/\s+/))
    for (const [, image] of instructions.filter(([word]) => word === 'FROM')) expect(image).toMatch(/^\S+:\S*(\d|nonroot)\S*$/)
    const last = instructions.slice(instructions.findLastIndex(([word]) => word === 'FROM'))
    expect(last[0]![1]).toMatch(/^gcr\.io\/distroless\/nodejs24-.*:nonroot$/)
    expect(last.find(([word]) => word === 'USER')).toEqual(['USER', 'nonroot'])
    for (const part of ['./dist', './migrations', './node_modules', './deploy/example']) {
      expect(
        last.some(([word, ...rest]) => word === 'COPY' && rest.at(-1) === part),
        part,
      ).toBe(true)
    }
    expect(instructions.some(([word, ...rest]) => word === 'RUN' && rest.join(' ').startsWith('npm ci'))).toBe(true)
    // Whose the folder of keys is that compose.yaml mounts a new volume over.
    expect(last).toContainEqual(['COPY', '--from=build', '--chown=65532:65532', '/var/lib/mayfly', '/var/lib/mayfly'])
  })
})

describe('the manifests for Kubernetes', () => {
  const Head = { apiVersion: z.string(), metadata: z.strictObject({ name: z.string(), labels: z.strictObject({ app: z.literal('mayfly') }) }) }
  const Probe = z.strictObject({
    httpGet: z.strictObject({ path: z.string(), port: z.literal('http') }),
    periodSeconds: z.int(),
    timeoutSeconds: z.int(),
    failureThreshold: z.int().optional(),
  })
  const Container = z.strictObject({
    name: z.literal('broker'),
    image: Pinned,
    ports: z.array(z.strictObject({ name: z.literal('http'), containerPort: z.literal(7420) })),
    securityContext: z.strictObject({
      readOnlyRootFilesystem: z.literal(true),
      allowPrivilegeEscalation: z.literal(false),
      capabilities: z.strictObject({ drop: z.tuple([z.literal('ALL')]) }),
    }),
    resources: z.strictObject({ requests: z.record(z.string(), z.string()), limits: z.strictObject({ memory: z.string() }) }),
    readinessProbe: Probe,
    livenessProbe: Probe,
    volumeMounts: z.array(z.strictObject({ name: z.string(), mountPath: z.string(), readOnly: z.literal(true).optional() })),
  })
  const Deployment = z.strictObject({
    ...Head,
    kind: z.literal('Deployment'),
    spec: z.strictObject({
      replicas: z.int().min(2),
      selector: z.unknown(),
      strategy: z.strictObject({
        type: z.literal('RollingUpdate'),
        rollingUpdate: z.strictObject({ maxUnavailable: z.literal(0), maxSurge: z.int() }),
      }),
      template: z.strictObject({
        metadata: z.unknown(),
        spec: z.strictObject({
          serviceAccountName: z.literal('mayfly'),
          automountServiceAccountToken: z.literal(false),
          terminationGracePeriodSeconds: z.int().min(36),
          // Strict: an fsGroup would open the key files to the group.
          securityContext: z.strictObject({
            runAsNonRoot: z.literal(true),
            runAsUser: z.int().min(1),
            runAsGroup: z.int().min(1),
            seccompProfile: z.strictObject({ type: z.literal('RuntimeDefault') }),
          }),
          containers: z.tuple([Container]),
          volumes: z.array(z.looseObject({ name: z.string() })),
        }),
      }),
    }),
  })
  /** Whole: of what has `items` every other file is silently left out. */
  const ConfigMap = z.strictObject({ name: z.string(), configMap: z.strictObject({ name: z.string() }) })
  const kinds = ['ServiceAccount', 'PersistentVolumeClaim', 'Deployment', 'Service', 'PodDisruptionBudget', 'NetworkPolicy'] as const

  test('run two brokers that own nothing but their keys, and probe them truthfully', async () => {
    const documents = parseAllDocuments(await read('deploy/kubernetes/mayfly.yaml'), { strict: true, uniqueKeys: true })
    const manifests = documents.map((document) => {
      expect(document.errors).toEqual([])
      return z.looseObject({ ...Head, kind: z.enum(kinds) }).parse(document.toJS())
    })
    expect(manifests.map(({ kind }) => kind)).toEqual([...kinds])
    const { spec } = Deployment.parse(manifests.find(({ kind }) => kind === 'Deployment'))
    const [broker] = spec.template.spec.containers
    expect([broker.readinessProbe.httpGet.path, broker.livenessProbe.httpGet.path]).toEqual(['/readyz', '/healthz'])
    expect(broker.volumeMounts.map(({ name }) => name).toSorted()).toEqual(spec.template.spec.volumes.map(({ name }) => name).toSorted())
    expect(broker.volumeMounts.filter(({ readOnly }) => !readOnly).map(({ name }) => name)).toEqual(['keys', 'temporary'])
  })

  test('put each folder of deploy/production whole where its configuration looks for it, also files that come later', async () => {
    const manifests = await read('deploy/kubernetes/mayfly.yaml')
    const [, , deployment] = parseAllDocuments(manifests)
    const { containers, volumes } = Deployment.parse(deployment!.toJS()).spec.template.spec
    const mounted = volumes
      .filter((volume) => 'configMap' in volume)
      .map((volume) => {
        const { name, configMap } = ConfigMap.parse(volume)
        return [configMap.name, containers[0].volumeMounts.find((mount) => mount.name === name)?.mountPath]
      })
    // As its head has them made, each of the files of one folder.
    const made = [...manifests.matchAll(/^#   kubectl create configmap (\S+) --from-file=deploy\/production(\S*)$/gm)]
    expect(mounted).toEqual(made.map(([, name, folder]) => [name, `/etc/mayfly${folder!}`]))

    const files = await readdir(path.join(root, 'deploy/production'), { recursive: true, withFileTypes: true })
    const folders = files.filter((file) => file.isFile()).map((file) => path.relative(path.join(root, 'deploy/production'), file.parentPath))
    expect(made.map(([, , folder]) => folder!.slice(1))).toEqual([...new Set(folders)].toSorted())
  })
})

describe('the configurations that are shipped', () => {
  test.each(['deploy/example/mayfly.yaml', 'deploy/vault/example/mayfly.yaml'])('%s is sound, and its cases come out as expected', async (file) => {
    // As `npm run stack` prints them; neither is looked at here.
    const stack = { BAO_ADDR: 'http://127.0.0.1:8200', BROKER_TOKEN_FILE: '/nowhere/broker-token' }
    expect(await mayfly(['policy', 'check', '--config', path.join(root, file)], stack)).toMatchObject({ status: 0, stderr: '' })
  })

  test('deploy/production/mayfly.yaml lacks nothing but the secret that is mounted', async () => {
    const ran = await mayfly(['policy', 'check', '--config', path.join(root, 'deploy/production/mayfly.yaml')])
    expect(ran.status).toBe(1)
    expect(ran.stderr.trim().split('\n')).toEqual([
      'the configuration is refused:',
      expect.stringMatching(/mayfly\.yaml:\d+: store\.url: .*\/run\/secrets\/database_url/),
    ])
  })

  test('deploy/production is sound with a placeholder for that secret, put in as docs/policies-by-example.md says, and its cases come out as expected', async () => {
    const [command] = /^sed .+ mayfly\.yaml > check\.yaml$/m.exec((await read('docs/policies-by-example.md')).replaceAll(/^\$ /gm, ''))!
    const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-production-'))
    await cp(path.join(root, 'deploy/production'), folder, { recursive: true })
    await promisify(execFile)('sh', ['-ec', command], { cwd: folder })
    expect(await mayfly(['policy', 'check', '--config', path.join(folder, 'check.yaml')])).toMatchObject({ status: 0, stderr: '' })
    await rm(folder, { recursive: true })
  })

  test('deploy/production/catalogue.yaml lets one workflow of a repository be its agent, and not every one that runs there', async () => {
    const { agents } = parse(await read('deploy/production/catalogue.yaml')) as { agents: Record<string, { match: object }> }
    expect(Object.keys(agents)).not.toEqual([])
    for (const { match } of Object.values(agents)) expect(match).toHaveProperty('job_workflow_ref')
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('deploy/postgres/roles.sql', () => {
  test('lets the owner migrate, and the broker run without being able to change history or schema', async () => {
    const { settings, dispose } = await openDatabase()
    const { url } = settings as { url: string }
    const suffix = new URL(url).pathname.slice(-12)
    const named = (name: string) => `${name}_${suffix}`
    // The logins belong to the cluster: under names of this test's own, so that it can run beside another.
    const script = (await read('deploy/postgres/roles.sql'))
      .replaceAll(/\b(mayfly_owner|mayfly_broker)\b/g, (name) => named(name))
      .replaceAll(/:'(owner|app)_password'/g, "'secret'")
    const admin = postgres(url, { max: 1, onnotice: () => {} })
    await admin.unsafe(script)
    const [after] = await admin`
      select current_setting('log_statement') as said, current_setting('log_min_error_statement') as failed,
        current_setting('log_min_duration_statement') as slow, has_database_privilege('public', current_database(), 'connect') as anybody`
    expect(after, 'no password in a log, and nobody else let in').toEqual({ said: 'none', failed: 'panic', slow: '-1', anybody: false })
    const as = (name: string): string => Object.assign(new URL(url), { username: named(name), password: 'secret' }).href

    await expect(connect({ url: as('mayfly_broker') })).rejects.toThrow(/mayfly migrate/)
    await migratePostgres(as('mayfly_owner'))
    const ledger = await connect({ url: as('mayfly_broker') })
    await archivePolicySet(ledger, 'sha256:x', {})
    for (const statement of [
      'update entries set kind = null',
      'delete from entries',
      'truncate entries',
      'create table x (y int)',
      'drop table leases',
    ]) {
      await expect(ledger.run(sql.raw(statement)), statement).rejects.toMatchObject({ code: 'internal' })
    }

    await ledger.close()
    for (const name of ['mayfly_owner', 'mayfly_broker']) await admin.unsafe(`drop owned by ${named(name)} cascade; drop role ${named(name)}`)
    await admin.end()
    await dispose()
  })
})
