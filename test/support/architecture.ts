import path from 'node:path'

/** A file of src, by its path below it. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

interface Import {
  readonly target: string
  readonly typeOnly: boolean
}

/** The floors of the house, lowest first. A room may import from below it. */
const floors: Readonly<Record<string, number>> = {
  base: 0,
  proof: 1,
  telemetry: 1,
  identity: 1,
  config: 2,
  policy: 2,
  client: 2,
  providers: 3,
  ledger: 3,
  tasks: 4,
  reaper: 5,
  http: 5,
  console: 5,
  main: 6,
  cli: 6,
}

/** What a room may import as types only, beside what lies below it: a type lives where it is made. */
const typesFrom: Readonly<Record<string, readonly string[]>> = {
  ledger: ['policy', 'identity', 'telemetry'],
  providers: ['policy', 'identity', 'telemetry'],
  client: ['http'],
  cli: ['http'],
}

/** What a room above may use of a room below, where the floors alone would allow more. */
const narrowed: Readonly<Record<string, readonly string[]>> = {
  // Of identity it needs whether an actor is the one that an entry means, and the words for an entry that means nobody.
  policy: ['base', 'proof', 'identity'],
  // A key that somebody names is read at the door. Of identity it needs which attributes an issuer can prove.
  config: ['base', 'proof', 'identity'],
  client: ['base'],
  providers: ['base', 'proof'],
  // Its pages hang under http's door, and share its shapes and its words for refusals: a second set of either would drift away from the first.
  console: ['base', 'proof', 'telemetry', 'identity', 'policy', 'ledger', 'tasks', 'http'],
  ledger: ['base', 'proof'],
  cli: ['base', 'client', 'proof', 'main', 'config'],
}

/** One library lives in one room. zod may stand at any door. */
const libraries: Readonly<Record<string, readonly string[]>> = {
  hono: ['http', 'console'],
  'openid-client': ['console'],
  '@hono/node-server': ['http'],
  '@hono/zod-openapi': ['http'],
  'drizzle-orm': ['ledger'],
  postgres: ['ledger'],
  '@electric-sql/pglite': ['ledger'],
  jose: ['identity', 'providers'],
  '@cedar-policy/cedar-wasm': ['policy'],
  yaml: ['base'],
  pino: ['telemetry'],
  'prom-client': ['telemetry'],
  cockatiel: ['providers'],
  commander: ['cli'],
  canonicalize: ['proof'],
  'typeid-js': ['base'],
  'node-vault': ['providers'],
  '@aws-sdk/client-iam': ['providers'],
  '@aws-sdk/client-sts': ['providers'],
}

/** What may stand in some places only, and which. */
const phrases: readonly { readonly what: string; readonly pattern: RegExp; readonly allowed: (file: string) => boolean }[] = [
  { what: 'reads the environment', pattern: /\bprocess\.env\b/, allowed: (file) => file === 'config/environment.ts' },
  {
    what: 'reads a clock',
    pattern: /\b(Date\.now|performance\.now)\(|\bnew Date\(\)/,
    // The script runs in a browser, whose clock it holds against the broker's.
    allowed: (file) => file === 'base/time.ts' || file === 'console/script.ts',
  },
  { what: 'prints', pattern: /\bconsole\.\w+\(/, allowed: (file) => file.startsWith('cli/') },
  {
    what: 'opens a secret',
    pattern: /\.open\(\)/,
    allowed: (file) => /^(providers|client|cli)\//.test(file) || file === 'http/reveal.ts' || file === 'http/tasks.ts',
  },
]

/** The room of a file: its folder, or itself where it stands alone. `config.ts` is the door of `config/`. */
export const roomOf = (file: string): string => file.split('/')[0]!.replace(/\.ts$/, '')

/** Every import of a file: static, dynamic and re-exported. */
export function importsOf({ text }: SourceFile): Import[] {
  const code = withoutComments(text)
  const statics = [...code.matchAll(/\b(?:import|export)\s+(type\s+)?([^'";]*?)\s*from\s*'([^']+)'/g)].map(([, type, names, target]) => {
    const everyNameIsType =
      /^\{[^}]*\}$/.test(names!.trim()) &&
      names!
        .replace(/[{}]/g, '')
        .split(',')
        .filter((name) => name.trim())
        .every((name) => name.trim().startsWith('type '))
    return { target: target!, typeOnly: type !== undefined || everyNameIsType }
  })
  const others = [...code.matchAll(/\bimport\s*\(?\s*'([^']+)'/g)].map(([, target]) => ({ target: target!, typeOnly: false }))
  return [...statics, ...others]
}

/** Every violation of the floors, in words. */
export function violations(files: readonly SourceFile[]): string[] {
  return [...files.flatMap(floorFaults), ...files.flatMap(libraryFaults), ...files.flatMap(phraseFaults), ...cycles(files)]
}

function floorFaults(file: SourceFile): string[] {
  const room = roomOf(file.path)
  const faults: string[] = []
  if (floors[room] === undefined) return [`${file.path}: ${room} stands on no floor`]
  for (const { target, typeOnly } of importsOf(file)) {
    if (!target.startsWith('.')) continue
    const other = roomOf(path.posix.join(path.posix.dirname(file.path), target))
    if (other === room) continue
    if (typeOnly && typesFrom[room]?.includes(other)) continue
    const allowed = narrowed[room]?.includes(other) ?? floors[other]! < floors[room]
    if (!allowed) faults.push(`${file.path}: imports ${other}${typeOnly ? ' (types)' : ''}, which ${room} may not`)
  }
  return faults
}

function libraryFaults(file: SourceFile): string[] {
  return importsOf(file).flatMap(({ target }) => {
    const name = target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : target.split('/')[0]!
    const rooms = libraries[name]
    return rooms === undefined || rooms.includes(roomOf(file.path))
      ? []
      : [`${file.path}: imports the library ${name}, which lives in ${rooms.join(', ')}`]
  })
}

function phraseFaults(file: SourceFile): string[] {
  const code = withoutComments(file.text)
  return phrases.flatMap(({ what, pattern, allowed }) => (pattern.test(code) && !allowed(file.path) ? [`${file.path}: ${what}`] : []))
}

/** Rings of imports that exist when the program runs; types vanish before. */
function cycles(files: readonly SourceFile[]): string[] {
  const edges = new Map(
    files.map((file) => [
      file.path,
      importsOf(file).flatMap(({ target, typeOnly }) =>
        typeOnly || !target.startsWith('.') ? [] : [path.posix.join(path.posix.dirname(file.path), target)],
      ),
    ]),
  )
  const done = new Set<string>()
  const found: string[] = []
  function visit(file: string, trail: readonly string[]): void {
    if (trail.includes(file)) found.push(`a ring of imports: ${[...trail.slice(trail.indexOf(file)), file].join(' -> ')}`)
    if (done.has(file) || trail.includes(file)) return
    for (const next of edges.get(file) ?? []) visit(next, [...trail, file])
    done.add(file)
  }
  for (const { path: file } of files) visit(file, [])
  return found
}

const withoutComments = (text: string): string => text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '$1')
