import { resolve } from 'node:path'
import type { Path } from '../base/shape-fault.ts'
import type { YamlFile } from '../base/yaml-file.ts'
import type { Environment } from './environment.ts'
import { type Found, readText } from './text.ts'

/**
 * The value with every `${env:NAME}` and `${file:PATH}` replaced, wherever text stands. What cannot be replaced is a fault and stays as it is.
 *
 * Once only: what a variable or a file holds is taken as it is, so whoever can set a variable cannot have another file read. A fault names the
 * variable or the file and never repeats a value.
 */
export async function withReferences(yaml: YamlFile, value: unknown, folder: string, environment: Environment): Promise<unknown> {
  async function replaced(value: unknown, path: Path): Promise<unknown> {
    if (typeof value === 'string') return await replacedText(value, path)
    if (Array.isArray(value)) return await Promise.all(value.map((item, index) => replaced(item, [...path, index])))
    if (typeof value !== 'object' || value === null) return value
    const entries = Object.entries(value).map(async ([key, item]) => [key, await replaced(item, [...path, key])] as const)
    return Object.fromEntries(await Promise.all(entries))
  }

  async function replacedText(text: string, path: Path): Promise<string> {
    const parts = await Promise.all(text.split(/(\$\{[^}]*\}?)/).map(resolved))
    const faults = parts.flatMap((part) => ('fault' in part ? [part.fault] : []))
    for (const fault of new Set(faults)) yaml.fault(path, fault)
    return faults.length > 0 ? text : parts.map((part) => ('found' in part ? part.found : '')).join('')
  }

  async function resolved(part: string): Promise<Found> {
    if (!part.startsWith('${')) return { found: part }
    const [, source, name] = /^\$\{(env|file):([^}]+)\}$/.exec(part) ?? []
    if (name === undefined) return { fault: '"${" begins a reference, which is ${env:NAME} or ${file:PATH}' }
    return source === 'env' ? variable(name, environment) : await content(name, resolve(folder, name))
  }

  return await replaced(value, [])
}

/** An empty variable is a missing one: it is what is left when whatever should have set it failed. */
function variable(name: string, environment: Environment): Found {
  const found = Object.hasOwn(environment, name) ? environment[name] : undefined
  return found ? { found } : { fault: `the environment variable ${name} is not set` }
}

/** Without the line end behind it, which editors and `echo` add. */
async function content(name: string, file: string): Promise<Found> {
  const text = await readText(file)
  return 'found' in text ? { found: text.found.replace(/\r?\n$/, '') } : { fault: `${name} ${text.fault}` }
}
