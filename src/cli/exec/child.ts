import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { isatty } from 'node:tty'

/** What ends a process unless it listens, and what people, terminals and supervisors send to end a command. */
const listened = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const
/** What means something to a command that listens, and is about nobody else. Without a listener the first opens Node's debugger to all who are on this machine. */
const forCommand = ['SIGUSR1', 'SIGUSR2'] as const
export type Signal = (typeof listened)[number] | (typeof forCommand)[number]

/** The signals to this process, from `listenToSignals` to `close`. Without a listener they would end it before its command, and before completion. */
export interface Signals {
  /** The first one that came to end this. */
  readonly first: Signal | undefined
  /** What the next ones do that come to end this. */
  hear: (signal: Signal) => void
  /** What the next ones do that are for the command. */
  handOn: (signal: Signal) => void
  close(): void
}

export function listenToSignals(): Signals {
  let first: Signal | undefined
  const receive = (signal: Signal): void => {
    first ??= signal
    signals.hear(signal)
  }
  const receiveForCommand = (signal: Signal): void => signals.handOn(signal)
  const signals: Signals = {
    get first() {
      return first
    },
    hear: () => undefined,
    handOn: () => undefined,
    close() {
      for (const signal of listened) process.off(signal, receive)
      for (const signal of forCommand) process.off(signal, receiveForCommand)
    },
  }
  for (const signal of listened) process.on(signal, receive)
  for (const signal of forCommand) process.on(signal, receiveForCommand)
  return signals
}

/** The status with which a shell reports an end by a signal. */
export const statusOf = (signal: NodeJS.Signals): number => 128 + constants.signals[signal]

/** What a shell answers for a command that is not there, and for one that cannot be run. */
const notFound = 127
const notRunnable = 126

export interface Child {
  /** Passes a signal on, but for the first interrupt at a terminal. After the command's end it does nothing. */
  pass(signal: Signal): void
  /** SIGTERM, and SIGKILL after `grace` milliseconds. */
  stop(grace: number): void
  /** The command's status; 128 and the signal's number where one ended it. */
  readonly ended: Promise<number>
}

/** Whether this was started at a terminal, wherever some of its input and output lead. */
const isAtTerminal = (): boolean => [0, 1, 2].some((stream) => isatty(stream))

/** Starts a command, without a shell, on the terminal and pipes of this process. */
export function start([name, ...args]: readonly [string, ...string[]], env: NodeJS.ProcessEnv, tell: (line: string) => void): Child {
  const child = spawn(name, args, { stdio: 'inherit', env })
  let kill: NodeJS.Timeout | undefined
  let isInterrupted = false
  const ended = new Promise<number>((resolve) => {
    child.on('error', ({ code }: NodeJS.ErrnoException) => {
      // Also said when a signal could not be sent; then the command still runs, and its end follows.
      if (child.pid !== undefined) return
      tell(code === 'ENOENT' ? `${name}: command not found` : `${name}: cannot be run (${code ?? 'unknown'})`)
      resolve(code === 'ENOENT' ? notFound : notRunnable)
    })
    child.once('exit', (status, signal) => {
      clearTimeout(kill)
      resolve(signal ? statusOf(signal) : (status ?? 1))
    })
  })
  return {
    pass(signal) {
      // A terminal gives its interrupt to the whole group, so the command has it already; twice would mean "at once" to many. Whoever repeats it means that, or
      // is not at the terminal.
      const isOfTerminal = (signal === 'SIGINT' || signal === 'SIGQUIT') && !isInterrupted && isAtTerminal()
      if (isOfTerminal) isInterrupted = true
      else child.kill(signal)
    },
    stop(grace) {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      kill ??= setTimeout(() => child.kill('SIGKILL'), grace)
    },
    ended,
  }
}
