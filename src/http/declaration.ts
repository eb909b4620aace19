import { BrokerError } from '../base/errors.ts'
import { parseDuration } from '../base/time.ts'
import type { Declaration as Declared } from '../tasks/task.ts'
import { type Declaration, type GrantRequest, longestDuration, type RenewRequest } from './contract.ts'

/*
 * From what stands on the wire to what the verbs are told: names in camelCase, milliseconds and Dates instead of text. The shapes have been
 * validated; what is left to refuse is what depends on the time.
 */

/** @param now milliseconds @throws BrokerError `invalid_request` for a deadline that has passed or is too far away */
export function readDeclaration(wire: Declaration, now: number): Declared {
  return {
    kind: wire.kind,
    purpose: wire.purpose ?? '',
    labels: wire.labels ?? {},
    ...readTiming(wire, now),
    grants: (wire.grants ?? []).map(readGrant),
  }
}

export function readGrant(wire: GrantRequest): Declared['grants'][number] {
  return { name: wire.name, parameters: wire.parameters ?? {}, ...milliseconds('ttl', wire.ttl) }
}

/** @param now milliseconds @throws BrokerError `invalid_request` for a deadline that has passed or is too far away */
export function readTiming(wire: RenewRequest, now: number): { duration?: number; deadline?: Date } {
  if (wire.deadline === undefined) return milliseconds('duration', wire.duration)
  const deadline = new Date(wire.deadline)
  if (deadline.getTime() <= now) throw faultyDeadline('has passed')
  if (deadline.getTime() > now + longestDuration) throw faultyDeadline('is more than 24 hours away')
  return { deadline }
}

function milliseconds<Name extends string>(name: Name, text: string | undefined): { [Key in Name]?: number } {
  const value = text === undefined ? undefined : parseDuration(text)
  return (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: number }
}

const faultyDeadline = (message: string) =>
  new BrokerError('invalid_request', `The deadline ${message}`, { errors: [{ pointer: '/deadline', message }] })
