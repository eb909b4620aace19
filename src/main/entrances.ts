import type { Config } from '../config.ts'
import type { ConsoleParts } from '../console/console.ts'
import type { Entrances } from '../console/entrance.ts'
import type { createApp } from '../http/app.ts'
import { localIssuer } from '../identity/local-issuer.ts'
import { createVerifier, type Verifier, type VerifierParts } from '../identity/verify.ts'

/** Milliseconds: a working day, where nobody signs in by an issuer that would know them again. */
const developmentSession = 12 * 3_600_000

/** Hangs the console under the API, where somebody can come in. */
export async function addConsole(
  app: ReturnType<typeof createApp>,
  { publicUrl, operators, console: people }: Config,
  parts: Pick<ConsoleParts, 'broker' | 'key' | 'entrances' | 'sequencer' | 'stop'>,
): Promise<void> {
  if (!parts.entrances.issuer && !parts.entrances.links) return
  // Loaded only here: its pages and what signs people in are a tenth of all that a broker loads.
  const { createConsole } = await import('../console/console.ts')
  app.route('/console', createConsole({ ...parts, publicUrl, operators, sessionLifetime: people?.session ?? developmentSession }))
}

/** Judges ID tokens of those who sign in to the console, which are for its client and nobody else. */
export function peopleVerifier({ console: people, identity }: Config, verifying: Omit<VerifierParts, 'audience'>): Verifier | undefined {
  if (!people) return undefined
  return createVerifier(
    identity.filter(({ name }) => name === people.issuer),
    { ...verifying, audience: people.clientId },
  )
}

/** The ways into the console. @param spend where links may be used, in development */
export function entrancesOf(
  { console: people, identity }: Config,
  verifier: Verifier | undefined,
  spend: VerifierParts['spend'] | undefined,
): Entrances {
  const entry = identity.find(({ name }) => name === people?.issuer)
  const local = identity.find((one) => one.issuer === localIssuer)
  return {
    ...(people &&
      verifier &&
      entry?.issuer && { issuer: { entry, settings: { ...people, issuer: entry.issuer, allowHttp: isPlain(entry.issuer) }, verifier } }),
    ...(spend && local && { links: { issuer: local.name, spend } }),
  }
}

/** The configuration has let plain http pass on loopback, or where it was told to. */
const isPlain = (url: string): boolean => url.startsWith('http:')
