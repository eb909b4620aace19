import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createViteServer } from 'vitest/node'

// Our AWS for development, `npm run stack:aws` in a checkout: on loopback alone and in memory, set up with the files of deploy/aws as they stand. It is gone when this ends.
const vite = await createViteServer({
  configFile: false,
  logLevel: 'error',
  appType: 'custom',
  server: { middlewareMode: true, ws: false, watch: null },
})
const load = (name) => vite.ssrLoadModule(path.join(import.meta.dirname, '../../test/support/aws', name))
const [{ startAwsPeer }, { deployAt }] = await Promise.all([load('peer.ts'), load('deployed.ts')])
const peer = await startAwsPeer({ port: Number(process.env.AWS_PEER_PORT ?? 4599) })
const { platform } = await deployAt(peer, { carrier: 'boundary', identity: 'default' })

// What a platform gives the broker that runs on it: a session, for an hour.
const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-aws-'))
const session = path.join(folder, 'broker-session')
const variables = { AWS_PEER: peer.url, ...platform }
const lines = Object.entries(variables).map(([name, value]) => `export ${name}='${value}'\n`)
await writeFile(session, lines.join(''), { mode: 0o600 })

process.stdout.write(`
STS, IAM and a little S3 of the account ${peer.account} are at ${peer.url}, with the bucket invoices and an invoice of acme and of globex in it.

A broker with an example of its files, in another terminal; its own session is good for an hour:
  . ${session}
  npx mayfly dev --config deploy/aws/example/mayfly.yaml

An agent that reads what its task may, in a third:
  export MAYFLY_TOKEN=$(npx mayfly dev token --agent invoice-bot) AWS_ENDPOINT_URL=${peer.url} AWS_REGION=${peer.region}
  npx mayfly exec --kind invoice-sync --grant invoices-bucket --param customer=acme -- aws s3api get-object --bucket invoices --key acme/1 /dev/stdout
  npx mayfly exec --kind invoice-sync --grant invoices-bucket --param customer=acme -- aws s3api get-object --bucket invoices --key globex/1 /dev/stdout

Ctrl-C ends it, and removes ${folder}.
`)

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => void end())

async function end() {
  await Promise.all([peer.stop(), vite.close(), rm(folder, { recursive: true, force: true })])
}
