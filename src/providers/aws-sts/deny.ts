import { randomUUID } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import type { Evidence } from '../../base/evidence.ts'
import type { DeniedSession } from '../../base/role-sessions.ts'
import { type LeaseReference, ProviderError, type ProviderSurroundings } from '../provider.ts'
import type { Sts } from './client.ts'
import { createCanary } from './kill-list/canary.ts'
import { type Carrier, createCarrier } from './kill-list/carrier.ts'
import { createRoleList } from './kill-list/role-list.ts'
import type { Pause, Rounds } from './kill-list/rounds.ts'
import type { CredentialSource } from './refreshed.ts'
import type { Observe } from './request.ts'
import type { AwsSettings } from './settings.ts'

/** Ends sessions before their time, by the kill lists of their roles. */
export interface Deny {
  /** @throws ProviderError `downstream` until AWS refuses what the lease was given */
  revoke(lease: LeaseReference, signal: AbortSignal): Promise<Evidence>
  /** Writes, watches and compares what is due and nobody waits for. */
  upkeep(signal: AbortSignal): Promise<void>
}

/** Milliseconds of life that are not worth a document: AWS takes about as long to heed one. */
const notWorthWriting = 10_000

/** Undefined where no kill list is configured, or there is no store to keep it in. */
export async function denying(
  name: string,
  settings: AwsSettings,
  { sessions, killLists, clock, noticed = () => {} }: ProviderSurroundings,
  {
    sts,
    arnOf,
    credentials,
    observe,
    pause = unhurried,
  }: {
    readonly sts: Sts
    readonly arnOf: (role: string) => string
    readonly credentials: CredentialSource
    readonly observe: Observe
    readonly pause?: Pause
  },
): Promise<Deny | undefined> {
  const { kill_list: killList } = settings
  if (!killList || !sessions || !killLists) return undefined
  const { createIam } = await import('./kill-list/iam.ts')
  const iam = createIam(name, settings, observe, credentials)
  const holder = randomUUID()
  /** The settings may say another carrier or policy than when the lists were written: what is missing there is found before anybody needs it. */
  let hasDoubted = false
  const known = new Map<string, { readonly carrier: Carrier; readonly rounds: Rounds }>()

  /** One for each role, for as long as the process lives: as many as the catalogue has ever named. */
  function listOf(role: string) {
    const list = known.get(role)
    if (list) return list
    const carrier = createCarrier(iam, settings, killList!, role)
    const canary = createCanary(sts, arnOf(role), clock)
    const rounds = createRoleList({ provider: name, role, holder, lists: killLists!, carrier, canary, noticed }, pause)
    known.set(role, { carrier, rounds })
    return known.get(role)!
  }

  return {
    async revoke({ lease }, signal) {
      const denied = await sessions.deny(name, lease)
      const proven = evidenceOf(denied)
      if (proven) return proven
      const left = Math.max(...denied.map((session) => session.left))
      if (left <= notWorthWriting)
        throw new ProviderError('downstream', `${name}: ends by itself in ${Math.ceil(left / 1_000)} s`, 'maybe', { pointlessFor: left })
      await Promise.all([...new Set(denied.map(({ role }) => role))].map((role) => listOf(role).rounds.covering(signal)))
      const now = evidenceOf(await sessions.deny(name, lease))
      if (!now) throw new ProviderError('downstream', `${name}: denied, not in force everywhere yet`, 'maybe')
      return now
    },

    async upkeep(signal) {
      if (!hasDoubted) await killLists.doubt(name)
      hasDoubted = true
      const due = await killLists.due(name)
      const rounds = await Promise.allSettled(due.map((role) => listOf(role).rounds.covering(signal)))
      const [failed] = rounds.flatMap((round) => (round.status === 'rejected' ? [round.reason as unknown] : []))
      if (failed !== undefined) throw failed
    },
  }

  /** What proves that nothing of the sessions is alive; undefined where something may be. */
  function evidenceOf(denied: readonly DeniedSession[]): Evidence | undefined {
    const at = new Date(clock()).toISOString()
    if (denied.length === 0) return { by: 'broker', statement: 'no session was ever asked for, and none will be', at }
    const alive = denied.filter(({ left }) => left > 0)
    if (alive.length === 0)
      return {
        by: 'time',
        statement: `what was given ended by itself at ${denied
          .map(({ endsAt }) => endsAt.toISOString())
          .toSorted()
          .at(-1)}`,
        at,
      }
    if (alive.some(({ confirmedAt }) => confirmedAt === undefined)) return undefined
    return {
      by: 'provider',
      statement: alive.map(sentenceOf).join('; '),
      at: alive
        .map(({ confirmedAt }) => confirmedAt!.toISOString())
        .toSorted()
        .at(-1)!,
    }
  }

  function sentenceOf({ role, generation, writtenAt, confirmedAt }: DeniedSession): string {
    const when = `written ${writtenAt?.toISOString()}, seen in force ${confirmedAt?.toISOString()}`
    return `denied by generation ${generation} of the kill list of ${role} (${listOf(role).carrier.label}), ${when}`
  }
}

/** A timer that keeps no process alive: what it waits for is due in the store. */
const unhurried: Pause = (ms) => wait(ms, undefined, { ref: false })
