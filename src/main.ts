import path from 'node:path'
import { withAllFaults } from './base/errors.ts'
import { unlessFired, whenFired } from './base/signal.ts'
import { systemClock } from './base/time.ts'
import { version } from './base/version.ts'
import { type Config, loadConfig } from './config.ts'
import { createApp } from './http/app.ts'
import { listen } from './http/listen.ts'
import { checkIssuers } from './identity/issuer.ts'
import { createVerifier, type VerifierParts } from './identity/verify.ts'
import { startAnchors } from './ledger/anchors.ts'
import { connect, type Ledger } from './ledger/connect.ts'
import { originOf } from './ledger/log-key.ts'
import { proveGrowth } from './ledger/proofs.ts'
import { startSequencer } from './ledger/sequencer.ts'
import { spendToken } from './ledger/tokens.ts'
import { developmentLink, developmentOverrides, exampleConfig, keepAudience } from './main/development.ts'
import { addConsole, entrancesOf, peopleVerifier } from './main/entrances.ts'
import { openKeyFiles } from './main/keys.ts'
import { openKeyOfLog } from './main/log-key.ts'
import { loadPolicy } from './main/policies.ts'
import { connectTargets } from './main/targets.ts'
import { providerKinds } from './providers/kinds.ts'
import type { Target } from './providers/target.ts'
import { startReaper } from './reaper.ts'
import { type Background, createBackground } from './tasks/background.ts'
import { putInForce } from './tasks/policy.ts'
import type { Broker } from './tasks/task.ts'
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
  const overrides = await developmentOverrides(folder, port)
  const { publicUrl } = overrides
  const loaded = await loadConfig(config, providerKinds, undefined, overrides)
  const link = await developmentLink(folder, publicUrl, 'operator:ops')
  const tell = async (url: string): Promise<void> => {
    // Only once it listens: a second `dev`, which cannot lock the folder, must not overwrite the audience of the broker that holds it.
    await keepAudience(folder, publicUrl)
    ready({ url, data: folder, console: link })
  }
  await run(loaded, stop, reloads, { production: false, ready: tell })
}

/**
 * Brings the schema of a configured Postgres up to date, as its owner. @throws ConfigurationError, BrokerError `store_unavailable`
 *
 * @returns whether a newer version has changed the store, and nothing was to be done
 */
export async function migrate(configFile: string): Promise<{ isNewer: boolean }> {
  const config = await loadConfig(configFile, providerKinds)
  await using ledger = await connect(config.store)
  return { isNewer: ledger.isNewer }
}

/** The whole program. Whatever starts here stops in reverse order: first no new requests, last the store. */
async function run(
  config: Config,
  stop: AbortSignal,
  reloads: Reloads,
  { production, ready }: { production: boolean; ready?: (url: string) => Promise<void> },
): Promise<void> {
  const telemetry = createTelemetry({ level: config.log.level })
  // Before the store, which connecting migrates: a set that is refused must not leave it to a version that does not start.
  const [{ digestKey, consoleKey, ownLogKey }, loaded] = await withAllFaults([
    openKeyFiles(config, production),
    loadPolicy(config),
    checkedIssuers(config),
  ])
  await using ledger = await connect(config.store)
  if (ledger.isNewer)
    telemetry.log.warn({}, 'a newer version has changed the store: this broker does not hold to what it does not know, such as a stop')
  const targets = await connectTargets(config, telemetry, production, ledger)
  beginAtZero(telemetry.metrics, namesIn(config, targets))
  const logKey = config.logKey ? await openKeyOfLog(config.logKey, targets, telemetry) : ownLogKey!
  const policy = await putInForce(loaded, () => loadPolicy(config), ledger, telemetry)
  reloads.to(() => void policy.reload())
  // Nothing is loaded any more once the store is to be closed.
  await using reloading = { [Symbol.asyncDispose]: () => (reloads.to(() => {}), policy.stop()) }
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
  await using draining = drainingOf(targets, background)
  await using reaper = startReaper(broker)
  const verifying = verifyingBy(ledger, telemetry)
  const verifier = createVerifier(config.identity, { ...verifying, audience: config.publicUrl })
  const people = peopleVerifier(config, verifying)
  await using watching = { [Symbol.asyncDispose]: async () => [verifier, people].forEach((one) => one?.close()) }
  const { publicUrl, operators, resourceServers, rates, doorLimits, connections } = config
  const app = createApp({ broker, verifier, reaper, sequencer, log, stop, publicUrl, operators, resourceServers, rates, limits: doorLimits })
  const entrances = entrancesOf(config, people, production ? undefined : verifying.spend)
  if (consoleKey) await addConsole(app, config, { broker, key: consoleKey, entrances, sequencer, stop })
  const clients = { connections, silence: Math.max(shortestSilence, doorLimits.time + 15_000) }
  await using server = await listen(app.fetch, { ...config.listen, clients }, telemetry)
  await ready?.(server.url)
  telemetry.log.info({ version, url: server.url, public_url: publicUrl, embedded: ledger.embedded }, 'the broker is listening')

  await fired(stop)
  telemetry.log.info({}, 'the broker stops: requests under way finish first')
  void [reloading, sequencer, draining, watching]
}

/** Waits when disposed of for what goes on in the background, and for what providers still have under way. */
const drainingOf = (targets: ReadonlyMap<string, Target>, background: Background): AsyncDisposable => ({
  [Symbol.asyncDispose]: () => {
    for (const { provider } of targets.values()) void background.run((signal) => unlessFired(provider.settled?.() ?? Promise.resolve(), signal))
    return background.drain(drainGrace)
  },
})

/** What tokens are judged with, whomever they are for. */
const verifyingBy = (ledger: Ledger, { log, metrics }: Telemetry): Omit<VerifierParts, 'audience'> => ({
  clock: systemClock,
  spend: (key, expiresAt) => spendToken(ledger, key, expiresAt),
  refused: (reason, issuer) => {
    metrics.tokensRefused.inc({ issuer, reason })
    log.info({ issuer, reason }, 'a workload token was refused')
  },
  keysFetched: (issuer, outcome) => metrics.issuerKeys.inc({ issuer, outcome }),
})

const namesIn = ({ identity, anchors }: Config, targets: ReadonlyMap<string, Target>): Named => ({
  issuers: identity.map(({ name }) => name),
  providers: [...targets].map(([name, { provider }]) => ({ name, events: provider.alarms ?? [] })),
  anchors: anchors.length,
})

/** Before anything is put in force under issuers that cannot be used. @throws ConfigurationError */
const checkedIssuers = async ({ identity }: Config): Promise<void> => checkIssuers(identity)

/** Resolves when the signal fires, or has fired already. */
async function fired(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => void whenFired(signal, resolve))
}
