/*
 * Loaded into a broker with NODE_OPTIONS=--import=…: the program as it is built, which on SIGUSR2 collects its garbage and writes what is left, in bytes,
 * into the file that HEAP_FILE names. What a process holds in all says little of a leak: a heap grows for a while without need.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc')
const file = process.env.HEAP_FILE

process.on('SIGUSR2', () => {
  collect()
  const { heapUsed, external } = process.memoryUsage()
  writeFileSync(`${file}.new`, String(heapUsed + external))
  renameSync(`${file}.new`, file)
})
