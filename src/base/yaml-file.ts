import { isNode, isMap, isScalar, LineCounter, parseDocument, visit, type Document } from 'yaml'
import type { ZodType } from 'zod'
import { ConfigurationError, describe } from './errors.ts'
import { faultOfShape, faultsOf, type Path } from './shape-fault.ts'
import { readText } from './text-file.ts'

/** A YAML file whose faults know their line, and which collects them, so that one edit mends them all. */
export interface YamlFile {
  readonly value: unknown
  /**
   * The value at this path in its shape; undefined if it has another one, which is then among the faults. Where a fault is known already, what
   * follows from it is left out.
   */
  parse<T>(shape: ZodType<T>, value: unknown, path: Path): T | undefined
  fault(path: Path, message: string): void
  /** `file:line` of what stands at this path. */
  place(path: Path): string
  /** @throws ConfigurationError with every fault found so far, in the order of the file */
  refuseFaults(): void
}

/** Bytes of one file. A catalogue of a thousand agents has about 200,000. */
const largest = 1024 * 1024
/** How often anchors may be referred to, so that a few lines cannot stand for a billion values. */
const mostAliases = 100

/** Reads one YAML 1.2 document, strictly: duplicate keys, keys that are not text and unknown tags are faults. @throws ConfigurationError */
export async function readYaml(file: string): Promise<YamlFile> {
  const text = await readText(file, largest)
  const lines = new LineCounter()
  const document = parseDocument(text, { strict: true, uniqueKeys: true, stringKeys: true, lineCounter: lines, prettyErrors: false })
  const at = (line: number): string => `${file}:${line}`

  const syntax = syntaxFaults(document).map(({ offset, message }) => `${at(lines.linePos(offset).line)}: ${message}`)
  visit(document, {
    Pair: (_, { key }) => {
      // zod's records skip this key silently; nothing that we configure may be skipped.
      if (isScalar(key) && key.value === '__proto__') syntax.push(`${at(lines.linePos(key.range?.[0] ?? 0).line)}: __proto__ is not a known key`)
    },
  })
  if (syntax.length > 0) throw new ConfigurationError(syntax)

  const lineOf = (path: Path): number => lines.linePos(offsetOf(document, path)).line
  const faults: { readonly key: string; readonly line: number; readonly text: string }[] = []
  const fault = (path: Path, message: string): void => {
    const line = lineOf(path)
    faults.push({ key: keyOf(path), line, text: `${at(line)}: ${path.length === 0 ? message : `${path.map(String).join('.')}: ${message}`}` })
  }
  return {
    value: plainValue(document, file),
    fault,
    place: (path) => at(lineOf(path)),
    parse(shape, value, path) {
      const parsed = shape.safeParse(value, { error: faultOfShape })
      if (parsed.success) return parsed.data
      const known = new Set(faults.map(({ key }) => key))
      function unlessKnown(at: Path, message: string): void {
        const key = keyOf(at)
        if (!known.has(key)) fault(at, message)
        known.add(key)
      }
      for (const { path: at, message } of parsed.error.issues.flatMap(faultsOf)) unlessKnown([...path, ...at], message)
      return undefined
    },
    refuseFaults() {
      if (faults.length > 0) throw new ConfigurationError(faults.toSorted((a, b) => a.line - b.line).map(({ text }) => text))
    },
  }
}

/** Behind a token that cannot stand where it stands, the parser stumbles over each further one: only the first is a fault. Tokens are not quoted. */
function syntaxFaults({ errors, warnings }: Document): readonly { readonly offset: number; readonly message: string }[] {
  const first = errors.find(({ code }) => code === 'UNEXPECTED_TOKEN')
  return [...errors, ...warnings]
    .filter((error) => error === first || error.code !== 'UNEXPECTED_TOKEN')
    .map(({ pos, message }) => ({ offset: pos[0], message: message.replace(/: ".*"$/s, '') }))
}

const keyOf = (path: Path): string => JSON.stringify(path.map(String))

function plainValue(document: Document, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: mostAliases })
  } catch (error) {
    throw new ConfigurationError([`${file}: ${describe(error)}`])
  }
}

/** Where the value at this path begins, or its key for a mapping's; where it is missing, whatever is nearest above. */
function offsetOf(document: Document, path: Path): number {
  for (let depth = path.length; depth > 0; depth--) {
    const parent = depth === 1 ? document.contents : document.getIn(path.slice(0, depth - 1), true)
    const last = path[depth - 1]
    if (isMap(parent)) {
      const key = parent.items.find((pair) => isScalar(pair.key) && pair.key.value === last)?.key
      if (isNode(key) && key.range) return key.range[0]
    }
    const node = document.getIn(path.slice(0, depth), true)
    if (isNode(node) && node.range) return node.range[0]
  }
  return 0
}
