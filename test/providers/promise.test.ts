import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../src/base/time.ts'
import { httpKind } from '../../src/providers/http/http.ts'
import { jwtKind } from '../../src/providers/jwt/jwt.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { providerContract, type Steps, type Subject } from './contract.ts'
import { reservationOf } from './reservation.ts'

const publicUrl = 'https://broker.example.com'
const steps: Steps = { mint: ['put'], revoke: ['delete'], recover: ['delete', 'get'], check: ['check'] }

providerContract('jwt', undefined, async () => {
  const keys = await mkdtemp(join(tmpdir(), 'mayfly-keys-'))
  const provider = await jwtKind.connect('tokens', jwtKind.settings.parse({}), { publicUrl, keys, clock: systemClock })
  return {
    provider,
    reserve: () => reservationOf(jwtKind.grant.parse({ audience: 'https://invoices.example.com', scope: 'invoices:read' })),
    works: async (token) => (await provider.tokens?.read(token)) !== undefined,
    stop: () => rm(keys, { recursive: true }),
  }
})

for (const type of ['bearer_token', 'username_password', 'aws_session', 'fields']) {
  providerContract(`http with ${type}`, type === 'bearer_token' ? steps : undefined, async () =>
    subjectBehind(await startLab({ token: 'lab-token' }), type),
  )
}

providerContract('http in front of the example server', steps, async () => {
  const example = fileURLToPath(new URL('../../docs/provider-http/example-server.mjs', import.meta.url))
  const child = spawn(process.execPath, [example], { env: { TOKEN: 'lab-token', PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  const port = line.split(' ').at(-1)
  const subject = await subjectBehind(await startLab({ token: 'lab-token', upstream: `http://127.0.0.1:${port}` }))
  return {
    ...subject,
    async stop() {
      await subject.stop()
      child.kill()
      await once(child, 'exit')
    },
  }
})

async function subjectBehind(lab: Lab, type = 'bearer_token'): Promise<Subject> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-http-'))
  const tokenFile = join(folder, 'token')
  await writeFile(tokenFile, 'lab-token\n')
  const settings = httpKind.settings.parse({ url: lab.url, token_file: tokenFile, revocation: 'provider' })
  const provider = await httpKind.connect('crm', settings, { publicUrl, keys: folder, clock: systemClock })
  return {
    provider,
    lab,
    reserve: () => reservationOf(httpKind.grant.parse({ settings: { type } })),
    works: (secret) => lab.works(secret),
    async stop() {
      await lab.stop()
      await rm(folder, { recursive: true })
    },
  }
}
