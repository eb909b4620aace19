// Loaded into a program with NODE_OPTIONS=--import=…: when it ends it adds the files of all CommonJS modules that it has loaded, one a line, to the file
// LOADED_MODULES. The SDK of AWS is CommonJS.
import { appendFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { cache } = createRequire(import.meta.url)
process.on('exit', () =>
  appendFileSync(
    process.env.LOADED_MODULES,
    Object.keys(cache)
      .map((file) => `${file}\n`)
      .join(''),
  ),
)
