import { ageOf, type Clock } from '../../base/time.ts'
import type { AwsSettings } from './settings.ts'

/** `children`: agents get short children of a session that the broker keeps. `direct`: they get the session itself. */
export type Mode = 'children' | 'direct'

/** Which mode each role is in. */
export interface Modes {
  /** Undefined where that has to be tried. */
  of(role: string): Mode | undefined
  /** What a try came to. */
  tried(role: string, mode: Mode): void
}

/** Milliseconds for which a try counts: what a policy or a Region lacked may be there an hour later, and the other way round. */
const remembered = 3_600_000

/** @param changed told once whenever a try came to something else than the one before it */
export function createModes(configured: AwsSettings['mode'], clock: Clock, changed: (role: string, mode: Mode) => void): Modes {
  // By role of the catalogue, so it does not grow.
  const tries = new Map<string, { readonly mode: Mode; readonly at: number }>()
  return {
    of(role) {
      if (configured !== 'auto') return configured
      const last = tries.get(role)
      return last && ageOf(last.at, clock) < remembered ? last.mode : undefined
    },
    tried(role, mode) {
      const last = tries.get(role)
      tries.set(role, { mode, at: clock() })
      if (last?.mode !== mode) changed(role, mode)
    },
  }
}
