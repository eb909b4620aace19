import { z } from 'zod'
import type { Actor } from './actor.ts'

const AttributeValue = z.string().min(1).max(1_024)

/** The name of an attribute of an actor. */
export const Attribute = z.string().min(1).max(256)

/** What an attribute has to be: a text, or one of these. */
export const OneOrSome = z.union([AttributeValue, z.array(AttributeValue).min(1).max(64)], 'must be text, or a list of texts')

/** Conditions of a catalogue or operator entry: every named attribute has this value, or one of these, or contains it where it is a list. */
export type Match = Readonly<Record<string, string | readonly string[]>>
export const Match = z
  .record(Attribute, OneOrSome)
  .refine((match) => Object.keys(match).length > 0, 'must name at least one attribute, or it would match everybody of the issuer')

/** Whether all conditions hold. An attribute that is absent never matches, and comparison is by whole string: no prefix, no pattern, no case folding. */
export function matches(actor: Actor, issuer: string, match: Match): boolean {
  if (actor.issuer !== issuer) return false
  return Object.entries(match).every(([name, wanted]) => {
    if (!Object.hasOwn(actor.attributes, name)) return false
    const has = [actor.attributes[name]!].flat()
    return [wanted].flat().some((value) => has.includes(value))
  })
}
