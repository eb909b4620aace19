// Loaded into a program with NODE_OPTIONS=--import=…: adds the files of all modules that it loads, one a line, to the file LOADED_MODULES. ECMAScript's as
// they are loaded, CommonJS's when the program ends: Node 20 tells of those at no other time.
import { appendFileSync } from 'node:fs'
import { createRequire, register } from 'node:module'

register('./noting-modules.mjs', import.meta.url)

const { cache } = createRequire(import.meta.url)
process.on('exit', () =>
  appendFileSync(
    process.env.LOADED_MODULES,
    Object.keys(cache)
      .map((file) => `${file}\n`)
      .join(''),
  ),
)
