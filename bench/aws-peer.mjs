import path from 'node:path'
import { createViteServer } from 'vitest/node'

// Our AWS in a process of its own, so that it shares its event loop with neither the broker nor whoever measures. Says where it is over IPC, and answers
// each message with how often each of its actions has been asked for.
const vite = await createViteServer({
  configFile: false,
  logLevel: 'error',
  appType: 'custom',
  server: { middlewareMode: true, ws: false, watch: null },
})
const { startAwsPeer } = await vite.ssrLoadModule(path.join(import.meta.dirname, '../test/support/aws/peer.ts'))
const { url, region, account, root, calls } = await startAwsPeer()
process.send({ url, region, account, root })

const counted = {}
let read = 0
process.on('message', () => {
  // An object of S3 is an action to the peer: counted by the service alone.
  for (const { service, action } of calls.slice(read)) {
    const name = service === 's3' ? service : `${service} ${action}`
    counted[name] = (counted[name] ?? 0) + 1
  }
  read = calls.length
  process.send(counted)
})
process.on('disconnect', () => process.exit())
