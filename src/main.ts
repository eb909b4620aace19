import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { ConfigurationError, describe, withAllFaults } from './base/errors.ts'
import { unlessFired, whenFired } from './base/signal.ts'
import { systemClock } from './base/time.ts'
import { version } from './base/version.ts'
import { type Config, loadConfig } from './config.ts'
import type { LogKeySettings } from './config/log-key.ts'
import type { Entrances } from './console/entrance.ts'
import { openConsoleKey } from './console/key.ts'
import { writeLink } from './console/link.ts'
import { createApp } from './http/app.ts'
import { listen } from './http/listen.ts'
import { issuerFaults } from './identity/issuer.ts'
import { localIssuer, openLocalIssuer } from './identity/local-issuer.ts'
import { createVerifier, type Verifier, type VerifierParts } from './identity/verify.ts'
import { connect, type Ledger } from './ledger/connect.ts'
import { killLists } from './ledger/kill-lists.ts'
import { roleSessions } from './ledger/role-sessions.ts'
import { startAnchors } from './ledger/anchors.ts'
import { proveGrowth } from './ledger/proofs.ts'
import { type LogKey, openLogKey, openNextLogKey, originOf, remoteLogKey, takeNextLogKey } from './ledger/log-key.ts'
import { type Rotated, rotateLog } from './ledger/rotation.ts'
import { startSequencer } from './ledger/sequencer.ts'
import { spendToken } from './ledger/tokens.ts'
import { checkCases } from './policy/cases.ts'
import { type Grant, loadCatalogue } from './policy/catalogue.ts'
import { loadPolicySet } from './policy/document.ts'
import { valueFault } from './policy/pattern.ts'
import { openNote, signedNote, verifierKeyOf } from './proof/note.ts'
import { orFault } from './providers/examination.ts'
import { providerKinds } from './providers/kinds.ts'
import { type Finding, ProviderError, type ProviderSurroundings, type TrialGrant } from './providers/provider.ts'
import { createTarget, type Target } from './providers/target.ts'
import { startReaper } from './reaper.ts'
import { createBackground } from './tasks/background.ts'
import { openDigestKey } from './tasks/digest-key.ts'
import { putInForce } from './tasks/policy.ts'
import type { ActivePolicy, Broker } from './tasks/task.ts'
import { beginAtZero, createTelemetry, type Named, type Telemetry } from './telemetry.ts'

/** Milliseconds that revocations under way have to finish when the broker stops; what is left is due in the ledger. */
const drainGrace = 10_000

/** Milliseconds after which a connection is cut on which nothing moves: more than the 45 s that completing may take. */
const shortestSilence = 60_000

/** Who asks for catalogue and policies to be loaded anew. */
export interface Reloads {
  /** Asks there from now on: at once where that was asked for before. */
  to(reload: () => void): void
}

/** Runs a broker in production until `stop` fires, then drains. @throws ConfigurationError with every fault, BrokerError `store_unavailable` */
export async function serve(configFile: string, stop: AbortSignal, reloads: Reloads): Promise<void> {
  await run(await loadConfig(configFile, providerKinds), stop, reloads, { production: true })
}

export interface DevOptions {
  /** Folder of store, keys and local issuer. */
  readonly data: string
  readonly port: number
  /** A configuration of one's own instead of `deploy/example`. */
  readonly config: string | undefined
}

/** Runs a broker on loopback with an embedded store and a local issuer, both in one private folder. Same errors as `serve`. */
export async function dev(
  { data, port, config = exampleConfig }: DevOptions,
  stop: AbortSignal,
  reloads: Reloads,
  ready: (facts: { url: string; data: string; console: string }) => void,
): Promise<void> {
  const folder = path.resolve(data)
  const local = await openDevelopmentIssuer(folder)
  const publicUrl = `http://127.0.0.1:${port}`
  const overrides = {
    publicUrl,
    port,
    store: { embedded: path.join(folder, 'store') },
    keys: path.join(folder, 'keys'),
    localKeys: local.jwks,
  }
  const loaded = await loadConfig(config, providerKinds, undefined, overrides)
  const link = await developmentLink(folder, publicUrl, 'operator:ops')
  const tell = async (url: string): Promise<void> => {
    // Not before it listens: one that is refused its folder must not change for whom the tokens are of the one that has it.
    await writeFile(path.join(folder, audienceFile), publicUrl)
    ready({ url, data: folder, console: link })
  }
  await run(loaded, stop, reloads, { production: false, ready: tell })
}

/** A link that signs in to the console of the development broker on this data folder, once, as an operator of this name. @throws ConfigurationError */
export async function devConsole(options: { data: string; operator: string }): Promise<string> {
  const folder = path.resolve(options.data)
  return await developmentLink(folder, await publicUrlOf(options.data), `operator:${options.operator}`)
}

async function developmentLink(folder: string, publicUrl: string, subject: string): Promise<string> {
  const key = await openConsoleKey(path.join(folder, 'keys'))
  return `${publicUrl}/console/enter?key=${writeLink(key, subject, systemClock)}`
}

/** A workload token of the local issuer, for the broker that `dev` runs on this data folder. @throws ConfigurationError */
export async function devToken(options: { data: string; sub: string; lifetimeSeconds: number }): Promise<string> {
  const folder = path.resolve(options.data)
  const audience = await publicUrlOf(options.data)
  const local = await openDevelopmentIssuer(folder)
  return await local.sign({ sub: options.sub, aud: audience, lifetimeSeconds: options.lifetimeSeconds }, systemClock())
}

/** Where the development broker of this data folder listens, or last did. @throws ConfigurationError */
async function publicUrlOf(data: string): Promise<string> {
  const folder = path.resolve(data)
  return await readFile(path.join(folder, audienceFile), 'utf8').catch(() => {
    throw new ConfigurationError([`${folder} is not the data folder of a development broker: start one with \`mayfly dev --data ${data}\``])
  })
}

/** Brings the schema of a configured Postgres up to date, as its owner. @throws ConfigurationError, BrokerError `store_unavailable` */
export async function migrate(configFile: string): Promise<void> {
  const config = await loadConfig(configFile, providerKinds)
  await (await connect(config.store)).close()
}

/**
 * Closes the log of a configured store and opens the next one under a key of its own, which takes the place of `log.key` in the keys folder. Interrupted
 * anywhere, it is done or not; doing it again goes on where it was. Knows key files alone.
 *
 * @param lost whether the key that the log was signed with is nowhere any more
 * @throws ConfigurationError, also where a provider keeps the key; BrokerError `store_unavailable`; `conflict` with what speaks against it
 */
export async function rotateLogKey(configFile: string, { lost }: { readonly lost: boolean }): Promise<Rotated> {
  const { keys, store, logKey } = await loadConfig(configFile, providerKinds)
  if (logKey)
    throw new ConfigurationError([
      'log_key: Vault keeps the key of this log, and only a log that log.key signs can be closed for another key. Where the key is gone from Vault, take log_key out and use --lost',
    ])
  await using ledger = await connect(store)
  const [key, next] = [lost ? undefined : await openLogKey(keys), await openNextLogKey(keys)]
  const rotated = await rotateLog({ ledger, key, next })
  await takeNextLogKey(keys, lost ? undefined : rotated.closed.log.number)
  return rotated
}

/** What the files of catalogue and policies come to, with their cases. @throws ConfigurationError with every fault */
export async function checkPolicies(
  configFile: string,
): Promise<{ digest: string; policies: number; cases: readonly { name: string; ok: boolean; detail: string }[] }> {
  const config = await loadConfig(configFile, providerKinds)
  const { catalogue, set } = await loadPolicy(config)
  const cases = await checkCases(catalogue, set, path.join(config.policies, 'cases.yaml'))
  return {
    digest: set.digest,
    policies: Object.keys(set.texts.policies).length,
    cases: cases.map(({ name, place, ok, detail }) => ({ name: `${name} (${place})`, ok, detail })),
  }
}

/** What the check of one provider came to: good unless something is at fault. */
export interface CheckedProvider {
  readonly name: string
  readonly ok: boolean
  readonly findings: readonly Finding[]
}

export interface ProviderCheck {
  /** This one alone. */
  readonly only?: string | undefined
  /** Values for parameters of grants, by `GRANT.NAME` or, for whichever grant has it, `NAME`. */
  readonly parameters?: Readonly<Record<string, string>>
}

/**
 * Whether each configured provider answers and accepts the broker and, where its kind can tell, whether all is well with each grant of the catalogue that
 * names it. @throws ConfigurationError
 */
export async function checkProviders(configFile: string, { only, parameters = {} }: ProviderCheck = {}): Promise<readonly CheckedProvider[]> {
  const config = await loadConfig(configFile, providerKinds)
  const providers = config.providers.filter(({ name }) => only === undefined || name === only)
  if (providers.length === 0) throw new ConfigurationError([`no provider is configured with the name "${only}"`])
  const { catalogue } = await loadPolicy(config)
  const targets = await connectTargets({ ...config, providers }, createTelemetry({ level: 'silent' }), false)
  return await Promise.all(
    [...targets].map(async ([name, target]) => {
      const grants = [...catalogue.grants.values()].filter(({ provider }) => provider === name).map((grant) => trialOf(grant, parameters))
      const [found, ofKey] = await Promise.all([target.provider.examine?.(grants) ?? shallowCheck(target), checkLogKey(config, target)])
      const findings = [...found, ...ofKey]
      return { name, ok: findings.every(({ level }) => level !== 'fault'), findings }
    }),
  )
}

const shallowCheck = (target: Target): Promise<Finding[]> =>
  orFault('backend', async () => {
    await target.check(new AbortController().signal)
    return [{ level: 'ok', subject: 'backend', message: target.provider.local ? 'is this broker itself' : 'answers and accepts the broker' }]
  })

/** Whether the key of the log signs, where this provider keeps it: with a text that is no checkpoint, and that nobody keeps. */
async function checkLogKey({ logKey, publicUrl }: Config, { provider, signingKey }: Target): Promise<Finding[]> {
  if (logKey?.provider !== provider.name) return []
  const { signal } = new AbortController()
  return await orFault('log key', async () => {
    const remote = signingKey(logKey.settings)
    const key = verifierKeyOf(originOf(publicUrl), await remote.publicKey(signal))
    const text = 'mayfly provider check\n'
    const note = openNote(signedNote(key, text, await remote.sign(Buffer.from(text), signal)), [key])
    return note.ok
      ? [{ level: 'ok', subject: 'log key', message: `signs. The verifier key of a log that begins now: ${key.text}` }]
      : [
          {
            level: 'fault',
            subject: 'log key',
            message: 'gives signatures that are not of its public half: something between here and Vault changes them',
          },
        ]
  })
}

/** @throws ConfigurationError for a value that the catalogue would not let an agent give */
function trialOf({ name, settings, maxTtl, parameters: patterns }: Grant, given: Readonly<Record<string, string>>): TrialGrant {
  const values = Object.entries(patterns).map(([parameter, pattern]) => {
    const value = given[`${name}.${parameter}`] ?? given[parameter]
    const fault = value === undefined ? undefined : valueFault(pattern, value)
    if (fault !== undefined) throw new ConfigurationError([`--param ${parameter}, of the grant ${name}: ${fault}`])
    return [parameter, value] as const
  })
  const complete = values.every((entry): entry is readonly [string, string] => entry[1] !== undefined)
  return { name, settings, maxTtl, parameters: complete ? Object.fromEntries(values) : undefined }
}

/** In the data folder: for whom the local issuer's tokens are, which is where the broker of this folder listens. */
const audienceFile = 'audience'

const exampleConfig = path.join(import.meta.dirname, '../deploy/example/mayfly.yaml')

/** The whole program. Whatever starts here stops in reverse order: first no new requests, last the store. */
async function run(
  config: Config,
  stop: AbortSignal,
  reloads: Reloads,
  { production, ready }: { production: boolean; ready?: (url: string) => Promise<void> },
): Promise<void> {
  const telemetry = createTelemetry({ level: config.log.level })
  const [{ digestKey, consoleKey, ownLogKey }] = await withAllFaults([openKeyFiles(config, production), checkIssuers(config)])
  await using ledger = await connect(config.store)
  if (ledger.isNewer)
    telemetry.log.warn({}, 'a newer version has changed the store: this broker does not hold to what it does not know, such as a stop')
  const targets = await connectTargets(config, telemetry, production, ledger)
  beginAtZero(telemetry.metrics, namesIn(config, targets))
  const logKey = config.logKey ? await openKeyOfLog(config.logKey, targets, telemetry) : ownLogKey!
  const policy = await putInForce(() => loadPolicy(config), ledger, telemetry)
  let reloaded = Promise.resolve()
  reloads.to(() => void (reloaded = policy.reload()))
  // Nothing is loaded any more once the store is to be closed.
  await using reloading = { [Symbol.asyncDispose]: () => (reloads.to(() => {}), reloaded) }
  const background = createBackground(telemetry.log)
  const broker: Broker = {
    ledger,
    targets,
    policy: () => policy.current(),
    telemetry,
    clock: systemClock,
    limits: { leasesPerTask: config.limits.leasesPerTask, stuckAfter: config.limits.stuckAfter },
    digestKey,
    background,
  }
  const log = { ledger, key: logKey, origin: originOf(config.publicUrl) }
  await using anchors = startAnchors(config.anchors, (checkpoint, from) => proveGrowth(ledger, checkpoint, from), telemetry)
  await using sequencer = startSequencer(log, telemetry, (note) => anchors.write(note))
  await using draining = {
    [Symbol.asyncDispose]: () => {
      for (const { provider } of targets.values()) void background.run((signal) => unlessFired(provider.settled?.() ?? Promise.resolve(), signal))
      return background.drain(drainGrace)
    },
  }
  await using reaper = startReaper(broker)
  const verifying: Omit<VerifierParts, 'audience'> = {
    clock: systemClock,
    spend: (key, expiresAt) => spendToken(ledger, key, expiresAt),
    refused: (reason, issuer) => {
      telemetry.metrics.tokensRefused.inc({ issuer, reason })
      telemetry.log.info({ issuer, reason }, 'a workload token was refused')
    },
    keysFetched: (issuer, outcome) => telemetry.metrics.issuerKeys.inc({ issuer, outcome }),
  }
  const verifier = createVerifier(config.identity, { ...verifying, audience: config.publicUrl })
  const people = peopleVerifier(config, verifying)
  await using watching = { [Symbol.asyncDispose]: async () => [verifier, people].forEach((one) => one?.close()) }
  const { publicUrl, operators, resourceServers, rates, doorLimits, connections } = config
  const app = createApp({ broker, verifier, reaper, sequencer, log, stop, publicUrl, operators, resourceServers, rates, limits: doorLimits })
  const entrances = entrancesOf(config, people, production ? undefined : verifying.spend)
  if (consoleKey && (entrances.issuer || entrances.links)) {
    // Only where somebody can come in: its pages and what signs people in are a tenth of all that a broker loads.
    const { createConsole } = await import('./console/console.ts')
    const sessionLifetime = config.console?.session ?? developmentSession
    app.route('/console', createConsole({ broker, publicUrl, operators, key: consoleKey, sessionLifetime, entrances, sequencer, stop }))
  }
  const clients = { connections, silence: Math.max(shortestSilence, doorLimits.time + 15_000) }
  await using server = await listen(app.fetch, { ...config.listen, clients }, telemetry.log)
  await ready?.(server.url)
  telemetry.log.info({ version, url: server.url, public_url: publicUrl, embedded: ledger.embedded }, 'the broker is listening')

  await fired(stop)
  telemetry.log.info({}, 'the broker stops: requests under way finish first')
  void [reloading, sequencer, draining, watching]
}

const namesIn = ({ identity, anchors }: Config, targets: ReadonlyMap<string, Target>): Named => ({
  issuers: identity.map(({ name }) => name),
  providers: [...targets].map(([name, { provider }]) => ({ name, events: provider.alarms ?? [] })),
  anchors: anchors.length,
})

/** Milliseconds: a working day, where nobody signs in by an issuer that would know them again. */
const developmentSession = 12 * 3_600_000

/** Judges ID tokens of those who sign in to the console, which are for its client and nobody else. */
function peopleVerifier({ console: people, identity }: Config, verifying: Omit<VerifierParts, 'audience'>): Verifier | undefined {
  if (!people) return undefined
  return createVerifier(
    identity.filter(({ name }) => name === people.issuer),
    { ...verifying, audience: people.clientId },
  )
}

/** The ways into the console. @param spend where links may be used, in development */
function entrancesOf({ console: people, identity }: Config, verifier: Verifier | undefined, spend: VerifierParts['spend'] | undefined): Entrances {
  const issuer = identity.find(({ name }) => name === people?.issuer)?.issuer
  const local = identity.find((one) => one.issuer === localIssuer)
  return {
    ...(people && verifier && issuer && { issuer: { settings: { ...people, issuer, allowHttp: isPlain(issuer) }, verifier } }),
    ...(spend && local && { links: { issuer: local.name, spend } }),
  }
}

/** The configuration has let plain http pass on loopback, or where it was told to. */
const isPlain = (url: string): boolean => url.startsWith('http:')

/** Milliseconds for which a start waits for the key of the log. */
const longestGreeting = 5_000

/** Before anything is put in force under issuers that cannot be used. @throws ConfigurationError */
async function checkIssuers({ identity }: Config): Promise<void> {
  const faults = issuerFaults(identity)
  if (faults.length > 0) throw new ConfigurationError(faults)
}

/** The keys of which this broker has files of its own: of the log where no provider keeps it. @throws ConfigurationError with the faults of all */
async function openKeyFiles({ keys, logKey, console: people }: Config, production: boolean) {
  const [digestKey, consoleKey, ownLogKey] = await withAllFaults([
    openDigestKey(keys),
    people || !production ? openConsoleKey(keys) : Promise.resolve(undefined),
    logKey ? Promise.resolve(undefined) : openLogKey(keys),
  ])
  return { digestKey, consoleKey, ownLogKey }
}

/**
 * The key of the log that a provider keeps. Where it does not answer the broker starts all the same, for ending leases needs no log.
 *
 * @throws ConfigurationError for a key that does answer, and is not fit to sign a log
 */
async function openKeyOfLog(logKey: LogKeySettings, targets: ReadonlyMap<string, Target>, { log }: Telemetry): Promise<LogKey> {
  const remote = targets.get(logKey.provider)!.signingKey(logKey.settings)
  await remote.publicKey(AbortSignal.timeout(longestGreeting)).catch((error: unknown) => {
    if (!(error instanceof ProviderError)) throw error
    if (error.fault === 'refused' || error.fault === 'garbage') throw new ConfigurationError([`log_key: ${error.message}`])
    log.warn({ error: describe(error) }, 'the key of the log does not answer: the broker starts, and signs as soon as it does')
  })
  return remoteLogKey(remote)
}

/** @param ledger where sessions and kill lists are kept; absent where providers are only checked */
async function connectTargets(config: Config, telemetry: Telemetry, production: boolean, ledger?: Ledger): Promise<ReadonlyMap<string, Target>> {
  const asked = (provider: string, request: string, outcome: string, seconds: number) =>
    telemetry.metrics.providerRequests.observe({ provider, request, outcome }, seconds)
  const noticed: ProviderSurroundings['noticed'] = (provider, level, event, detail) => {
    telemetry.metrics.providerEvents.inc({ provider, event })
    telemetry.log[level]({ provider, event, ...detail }, 'a provider has something to tell')
  }
  const kept = ledger && { sessions: roleSessions(ledger), killLists: killLists(ledger) }
  const surroundings: ProviderSurroundings = {
    publicUrl: config.publicUrl,
    keys: config.keys,
    clock: systemClock,
    production,
    asked,
    noticed,
    ...kept,
  }
  const targets = new Map<string, Target>()
  const faults: string[] = []
  for (const { name, kind, settings } of config.providers) {
    try {
      const provider = await providerKinds.get(kind)!.connect(name, settings, surroundings)
      const observe = (call: string, outcome: string, seconds: number) =>
        telemetry.metrics.providerCalls.observe({ provider: name, call, outcome }, seconds)
      targets.set(name, createTarget(provider, { clock: systemClock, observe }))
    } catch (error) {
      if (!(error instanceof ConfigurationError)) throw error
      faults.push(...error.faults)
    }
  }
  if (faults.length > 0) throw new ConfigurationError(faults)
  return targets
}

/** Catalogue and policies, with the faults of both at once. */
async function loadPolicy(config: Config): Promise<ActivePolicy> {
  const rules = new Map(
    config.providers.map(({ name, kind: kindOf, settings }) => {
      const kind = providerKinds.get(kindOf)!
      return [name, { ...kind, alone: (grant: unknown) => kind.exclusive?.(settings, grant) ?? [] }]
    }),
  )
  const issuers = new Set(config.identity.map(({ name }) => name))
  const [catalogue, set] = await withAllFaults([loadCatalogue(config.catalogue, rules, issuers), loadPolicySet(config.policies)])
  return { catalogue, set }
}

async function openDevelopmentIssuer(folder: string) {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  return await openLocalIssuer(path.join(folder, 'local-issuer.json'))
}

/** Resolves when the signal fires, or has fired already. */
async function fired(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => void whenFired(signal, resolve))
}
