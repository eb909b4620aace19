import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { ConfigurationError, describe } from '../base/errors.ts'
import { privateFolder } from '../base/key-file.ts'
import { systemClock } from '../base/time.ts'
import type { Overrides } from '../config.ts'
import { openConsoleKey } from '../console/key.ts'
import { writeLink } from '../console/link.ts'
import { openLocalIssuer } from '../identity/local-issuer.ts'

export const exampleConfig = path.join(import.meta.dirname, '../../deploy/example/mayfly.yaml')

/** In the data folder: the audience of the local issuer's tokens, which is the address of the broker that holds the folder. */
const audienceFile = 'audience'

/** What a development broker has of its data folder, whatever its configuration says: store, keys and issuer. @throws ConfigurationError */
export async function developmentOverrides(folder: string, port: number): Promise<Overrides & { readonly publicUrl: string }> {
  const local = await openDevelopmentIssuer(folder)
  return {
    publicUrl: `http://127.0.0.1:${port}`,
    port,
    store: { embedded: path.join(folder, 'store') },
    keys: path.join(folder, 'keys'),
    localKeys: local.jwks,
  }
}

/** Sets the audience of the local issuer's tokens, for the broker that holds this folder, and listens. */
export const keepAudience = (folder: string, publicUrl: string): Promise<void> => writeFile(path.join(folder, audienceFile), publicUrl)

/** A link that signs in to the console of the development broker on this data folder, once, as an operator of this name. @throws ConfigurationError */
export async function devConsole(options: { data: string; operator: string }): Promise<string> {
  const folder = path.resolve(options.data)
  return await developmentLink(folder, await publicUrlOf(options.data), `operator:${options.operator}`)
}

/** A link to the console of a development broker, for this subject, once. */
export async function developmentLink(folder: string, publicUrl: string, subject: string): Promise<string> {
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
  const audience = await readFile(path.join(folder, audienceFile), 'utf8').catch(() => {
    throw new ConfigurationError([`${folder} is not the data folder of a development broker: start one with \`mayfly dev --data ${data}\``])
  })
  await keepToItself(folder)
  return audience
}

async function openDevelopmentIssuer(folder: string) {
  await keepToItself(folder)
  return await openLocalIssuer(path.join(folder, 'local-issuer.json'))
}

/** Makes the data folder if it is missing. @throws ConfigurationError where others could say in it for whom tokens and links are */
async function keepToItself(folder: string): Promise<void> {
  await privateFolder(folder).catch((error: unknown) => {
    throw new ConfigurationError([`--data: ${describe(error)}`])
  })
}
