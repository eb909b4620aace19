// Beside loaded-modules.mjs, in the thread in which Node loads modules.
import { appendFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export async function load(url, context, next) {
  if (url.startsWith('file:')) appendFileSync(process.env.LOADED_MODULES, `${fileURLToPath(url)}\n`)
  return await next(url, context)
}
