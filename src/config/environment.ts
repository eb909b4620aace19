/** Variables by name, as a process has them. */
export type Environment = Readonly<Record<string, string | undefined>>

/** Where a client finds the broker, and with which token. */
export interface ClientSettings {
  readonly url: string
  readonly token: string | undefined
  /** Read again on each use. */
  readonly tokenFile: string | undefined
  /** The client certificate and its key, PEM, for a broker that asks for one. Read again on each use. */
  readonly certificateFile: string | undefined
  readonly keyFile: string | undefined
  /** Whether colours are welcome; the terminal decides besides. https://no-color.org */
  readonly colour: boolean
}

export function clientSettings(environment: Environment = process.env): ClientSettings {
  return {
    url: environment['MAYFLY_URL'] || 'http://127.0.0.1:7420',
    token: environment['MAYFLY_TOKEN'] || undefined,
    tokenFile: environment['MAYFLY_TOKEN_FILE'] || undefined,
    certificateFile: environment['MAYFLY_CLIENT_CERT_FILE'] || undefined,
    keyFile: environment['MAYFLY_CLIENT_KEY_FILE'] || undefined,
    colour: !environment['NO_COLOR'],
  }
}

/** The environment for the command of `mayfly exec`: it gets the credentials of its task, not the token with which any task could be opened. */
export function childEnvironment(environment: Environment = process.env): Record<string, string | undefined> {
  const { MAYFLY_TOKEN: _token, MAYFLY_TOKEN_FILE: _file, ...rest } = environment
  return rest
}

/** All of it: for the configuration, and for a command that is to have the token on purpose. */
export const wholeEnvironment = (environment: Environment = process.env): Record<string, string | undefined> => ({ ...environment })
