import type { Json } from '../base/json.ts'
import { isPrintable } from './claims.ts'

/**
 * A claim as an attribute. Nested claims are named by their path with slashes, such as `google/compute_engine/project_id`. Text and lists of text stay, whole numbers and booleans
 * become their text; anything else is no attribute, nor is text that cannot be kept and shown. Undefined too where two claims have this name, as `{"a/b": …}` and `{"a": {"b": …}}` do.
 */
export function lift(claims: Readonly<Record<string, Json | undefined>>, name: string): string | readonly string[] | undefined {
  const [found, ...others] = candidates(claims, name)
  return others.length > 0 ? undefined : asAttribute(found)
}

function candidates(claims: Readonly<Record<string, Json | undefined>>, name: string): Json[] {
  return Object.entries(claims).flatMap(([key, value]): Json[] => {
    if (value === undefined) return []
    if (key === name) return [value]
    if (!name.startsWith(`${key}/`) || value === null || typeof value !== 'object' || Array.isArray(value)) return []
    return candidates(value as Readonly<Record<string, Json>>, name.slice(key.length + 1))
  })
}

function asAttribute(value: Json | undefined): string | readonly string[] | undefined {
  if (typeof value === 'string') return isPrintable(value) ? value : undefined
  if (typeof value === 'boolean' || Number.isSafeInteger(value)) return JSON.stringify(value)
  return Array.isArray(value) && value.every((one) => typeof one === 'string' && isPrintable(one)) ? value : undefined
}
