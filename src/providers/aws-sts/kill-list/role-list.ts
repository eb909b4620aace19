import { BrokerError } from '../../../base/errors.ts'
import { ProviderError } from '../../provider.ts'
import { createRounds, type Pause, type Rounds, type Waiter } from './rounds.ts'
import { createWatch } from './watch.ts'
import { type RoleList, writeList } from './writer.ts'

/** Milliseconds from the beginning of one document to that of the next, of all brokers together. The first after a pause is written at once; who comes meanwhile shares the next. */
const writePause = 1_200
/** Milliseconds after which a list that somebody else holds is asked for again: soon, for nobody but one that died holds it for its whole claim. */
const untilReleased = 100
/** Milliseconds that one look may take. */
const longestLook = 4_000
/** Milliseconds that clearing up behind a document may take. */
const longestTidying = 10_000

/** Writes and watches the kill list of one role, one document at a time, for whoever waits. */
export function createRoleList(list: RoleList, pause: Pause): Rounds {
  const { provider, role, lists, holder, canary, noticed } = list
  let rung = 1
  let salt = ''
  let tidying = false
  const watch = createWatch({
    pause,
    inForce: (generation, shut) => canary.isInForce(generation, salt, shut, AbortSignal.timeout(longestLook)),
    async confirm(generation) {
      await lists.confirm(provider, role, generation)
      canary.forget(generation)
    },
  })

  async function round(waiting: Set<Waiter>): Promise<number> {
    // Whoever comes while the store is read may have denied something that was not read.
    const served = [...waiting]
    const rested = await lists.take(provider, role, holder, writePause)
    // Too soon to be written: but another broker's last document may have served everybody here, and they need not wait for one of ours. What is left of
    // the pause passes meanwhile.
    const rest = typeof rested === 'number' && rested <= writePause ? pause(rested) : undefined
    const held = rest ? await lists.take(provider, role, holder, 0) : rested
    if (typeof held === 'number') return untilReleased
    salt = held.salt
    watch.known(held.confirmed)
    const written = await writeList(list, held, typeof rested !== 'number')
    if (!written) return rest ? await rest.then(() => 0) : untilReleased
    if (written.rung !== undefined) noteRung(written.rung)
    const { generation } = written
    if (written.silent && generation > held.confirmed) await lists.confirm(provider, role, generation)
    for (const waiter of served) {
      waiting.delete(waiter)
      waiter.progress = () => `denied in generation ${generation} of the kill list of ${role}, not in force everywhere yet${watch.trouble}`
    }
    const inForce = written.silent ? Promise.resolve() : watch.until(generation, written.shut)
    inForce.then(
      () => served.forEach((waiter) => waiter.done()),
      // They give up by themselves, and say how far it came.
      () => {},
    )
    if (written.rung !== undefined) void tidy()
    return 0
  }

  /**
   * In the pause, where AWS is as quick as ever, and beside the next document where it is not: nobody waits for it. Never tried again by itself, for what
   * it leaves, or a broker that dies before, is cleared away behind the next document.
   */
  async function tidy(): Promise<void> {
    if (tidying) return
    tidying = true
    try {
      await list.carrier.tidy(AbortSignal.timeout(longestTidying))
    } catch (error) {
      noticed(provider, 'warn', 'kill_list_not_tidied', { role, why: whyOf(error) })
    }
    tidying = false
  }

  function noteRung(now: number): void {
    if (now !== rung) noticed(provider, now > 1 ? 'warn' : 'info', 'kill_list_rung', { role, rung: now })
    rung = now
  }

  return createRounds(pause, round, (error) => {
    const why = whyOf(error)
    noticed(provider, 'warn', 'kill_list_not_written', { role, why })
    return why
  })
}

const whyOf = (error: unknown): string =>
  error instanceof ProviderError || error instanceof BrokerError ? error.message : 'it failed in a way that is not foreseen'
