/*
 * Loaded into a program with NODE_OPTIONS=--import=…: it says on stderr what it does to the files of the log's key, before and after it has done it, and is
 * killed where DIES_AT_FILE says, as in `after rename log.key`.
 */
import { writeSync } from 'node:fs'
import files from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import path from 'node:path'

/** Functions that change a folder, with the place of the name that they change. */
const changes = { writeFile: 0, unlink: 0, link: 1, rename: 1 }

for (const [verb, place] of Object.entries(changes)) {
  const change = files[verb]
  files[verb] = async (...given) => {
    const what = `${verb} ${nameOf(given[place])}`
    reach(`before ${what}`)
    await change(...given)
    reach(`after ${what}`)
  }
}
syncBuiltinESMExports()

const nameOf = (file) =>
  path
    .basename(file)
    .replace(/[\da-f-]{36}$/, 'draft')
    .replace(/\d+/, 'N')

function reach(where) {
  if (where === process.env.DIES_AT_FILE) process.kill(process.pid, 'SIGKILL')
  writeSync(2, `${where}\n`)
}
