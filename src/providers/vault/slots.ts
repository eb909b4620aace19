/** How many calls may be under way at one backend behind Vault, such as a database. */
export interface Slots {
  /** Asks to make or to end something there, and waits a moment for its turn. Undefined: not now. Whoever got in must leave, and say whether there was an answer, where that is known. */
  enter(backend: string): Promise<Leave | undefined>
}

type Leave = (answered: boolean | undefined) => void

/** Milliseconds for which a call waits for its turn: enough in a storm at a database that is well, and soon over at one that is not. */
const patience = 1_000

/** Backends that are remembered, more than anybody has behind one Vault: by their names, which Vault itself chooses and could invent without end. */
const mostRemembered = 256

interface Backend {
  underWay: number
  /** It kept somebody waiting in vain, and has answered nobody since. */
  silent: boolean
  /** How often it has answered. */
  answers: number
  /** Those who wait, in their order. */
  readonly waiting: Set<() => void>
}

/**
 * A database that does not answer holds each call for its whole time, so it may hold some of the broker's slots and never all: the others behind the same
 * Vault go on. Once it kept one waiting in vain it gets one at a time until it answers.
 *
 * @param most at one backend
 */
export function createSlots(most: number): Slots {
  const backends = new Map<string, Backend>()

  /** Waits for a place. Where there is none, and nobody was answered meanwhile, the backend is silent: whoever comes next need not wait to find out. */
  function turn(backend: Backend): Promise<boolean> {
    const { answers } = backend
    return new Promise((resolve) => {
      const called = (): void => {
        clearTimeout(timer)
        resolve(true)
      }
      const timer = setTimeout(() => {
        backend.waiting.delete(called)
        if (backend.answers === answers) backend.silent = true
        resolve(false)
      }, patience)
      backend.waiting.add(called)
    })
  }

  /** As the one that was asked last. What is not busy and was not asked for longest is forgotten for it, which gives it no more than a fresh start. */
  function remember(name: string, backend: Backend): void {
    backends.delete(name)
    if (backends.size >= mostRemembered) {
      const [idle] = [...backends].find(([, { underWay, waiting }]) => underWay === 0 && waiting.size === 0) ?? []
      if (idle !== undefined) backends.delete(idle)
    }
    backends.set(name, backend)
  }

  return {
    async enter(name) {
      const backend = backends.get(name) ?? { underWay: 0, silent: false, answers: 0, waiting: new Set() }
      remember(name, backend)
      const free = (): boolean => backend.underWay < (backend.silent ? 1 : most)
      if (!free() && (backend.silent || !(await turn(backend)) || !free())) return undefined
      backend.underWay++
      return (answered) => {
        backend.underWay--
        if (answered !== undefined) backend.silent = !answered
        if (answered) backend.answers++
        if (backend.underWay === 0 && backend.waiting.size === 0 && !backend.silent) backends.delete(name)
        const [next] = backend.waiting
        if (next && free()) {
          backend.waiting.delete(next)
          next()
        }
      }
    },
  }
}
