import type { Json } from '../base/json.ts'
import { isPrintable } from './claims.ts'

/**
 * A claim as an attribute. Nested claims are named by their path with slashes, such as `google/compute_engine/project_id`. Text and lists of text stay, whole numbers and booleans
 * become their text. Undefined where there is no such claim, or it is null. Null where there is one that cannot be read: it is anything else, or text that cannot be kept and shown, or two
 * claims have this name, as `{"a/b": …}` and `{"a": {"b": …}}` do.
 */
export function lift(claims: Readonly<Record<string, Json | undefined>>, name: string): string | readonly string[] | null | undefined {
  const [found, ...others] = candidates(claims, name)
  if (found === undefined) return undefined
  return others.length > 0 ? null : asAttribute(found)
}

function candidates(claims: Readonly<Record<string, Json | undefined>>, name: string): Json[] {
  return Object.entries(claims).flatMap(([key, value]): Json[] => {
    if (value === undefined || value === null) return []
    if (key === name) return [value]
    if (!name.startsWith(`${key}/`) || typeof value !== 'object' || Array.isArray(value)) return []
    return candidates(value as Readonly<Record<string, Json>>, name.slice(key.length + 1))
  })
}

function asAttribute(value: Json): string | readonly string[] | null {
  if (typeof value === 'string') return isPrintable(value) ? value : null
  if (typeof value === 'boolean' || Number.isSafeInteger(value)) return JSON.stringify(value)
  return Array.isArray(value) && value.every((one) => typeof one === 'string' && isPrintable(one)) ? value : null
}
