import { isLoopback } from '../base/address.ts'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import { BrokerUnreachable, MayflyProblem } from '../client/client.ts'
import { mayBeDone } from '../client/problem.ts'
import type { Output } from './output.ts'

/** The command was called in a way that cannot work: exit 2. */
export class UsageError extends Error {}

/** The command did its work, and what it found is not good: exit 1 with nothing more to say. */
export class Unsuccessful extends Error {}

/** What to print for an error, and with which status to exit: 1 refused or failed, 2 usage. Each says what to do next. */
export function explain(error: unknown): { lines: readonly string[]; status: 1 | 2 } {
  if (error instanceof Unsuccessful) return { lines: [], status: 1 }
  // Whoever read has had enough, as `head` does.
  if (error instanceof Error && 'code' in error && error.code === 'EPIPE') return { lines: [], status: 1 }
  if (error instanceof UsageError) return { lines: [error.message], status: 2 }
  if (error instanceof ConfigurationError)
    return { lines: ['the configuration is refused:', ...error.faults.map((fault) => `  ${fault}`)], status: 1 }
  if (error instanceof BrokerUnreachable) {
    return { lines: [error.message, ...(error.isRefused ? [whereNobodyListens(error.url)] : [])], status: 1 }
  }
  if (error instanceof MayflyProblem) return { lines: explainProblem(error), status: 1 }
  if (error instanceof BrokerError)
    return { lines: [error.cause === undefined ? error.detail : `${error.detail}: ${describe(error.cause)}`], status: 1 }
  return { lines: [describe(error)], status: 1 }
}

/**
 * What a program is told of a failure in the place of the result: what the broker answered, with the receipts of what the ledger keeps of it; what failed in this
 * process, by the same codes; or a code of the command's own: `unreachable`, `usage`, `configuration`, `failed`. Undefined where a result was printed already, or nobody reads.
 */
export function failureView(error: unknown): object | undefined {
  if (error instanceof MayflyProblem) {
    const { status, code, detail, retry, decision, errors, receipts, requestId: request_id, retryAfter: retry_after } = error
    return { code, detail, status, retry, decision, errors, receipts, request_id, retry_after, idempotency_key: error.idempotencyKey }
  }
  const { lines, status } = explain(error)
  if (lines.length === 0) return undefined
  if (error instanceof ConfigurationError) return { code: 'configuration', detail: 'the configuration is refused', faults: error.faults }
  if (error instanceof BrokerUnreachable) return { code: 'unreachable', detail: error.message, idempotency_key: error.idempotencyKey }
  if (error instanceof BrokerError) return { code: error.code, detail: lines[0] }
  return { code: status === 2 ? 'usage' : 'failed', detail: lines[0] }
}

const whereNobodyListens = (url: string): string =>
  isLoopback(new URL(url).hostname)
    ? 'Is the broker running there? Start one with `npm start`, or set MAYFLY_URL.'
    : 'Is the broker running there? MAYFLY_URL says where it is asked.'

/**
 * Of a call that is not asked again: says, where its answer was lost, that it may have been started all the same, and where to look.
 * @param look the commands that show it. @throws what it is given
 */
export const noteLost =
  (output: Output, look: string) =>
  (error: unknown): never => {
    const isLost = error instanceof BrokerUnreachable ? !error.isLasting && !error.isRefused : error instanceof MayflyProblem && mayBeDone(error)
    if (isLost) output.note(`it may have been started all the same; look before asking again: ${look}`)
    throw error
  }

function explainProblem(problem: MayflyProblem): string[] {
  const faults = problem.errors.map(({ pointer, message }) => `  ${pointer}: ${message}`)
  const request = problem.requestId === undefined ? [] : [`request ${problem.requestId}`]
  return [`${problem.code}: ${problem.detail}`, ...faults, ...nextStep(problem), ...request]
}

function nextStep({ code, detail, decision, retryAfter }: MayflyProblem): string[] {
  switch (code) {
    case 'invalid_token':
      return ['Get a fresh workload token into MAYFLY_TOKEN or MAYFLY_TOKEN_FILE (development: mayfly dev token --agent NAME). The broker logs why.']
    case 'denied':
      // The policy permitted it: asked again, it would say so.
      if (/\bstop_[0-9a-z]{26}\b/.test(detail)) return ['What operators have stopped, and why, a reviewer can see: mayfly issuing stops --in-force']
      return [`A reviewer can see why: mayfly policy replay ${decision ?? 'dec_…'}`]
    case 'agent_unknown':
      return ['Add this identity to `agents` in the catalogue, or look whether two entries match it: mayfly policy check']
    case 'forbidden':
      return [
        'What the broker says above keeps this token out. Where a call is for operators or reviewers, `operators` in mayfly.yaml says who they are.',
      ]
    case 'rate_limited':
    case 'provider_unavailable':
    case 'store_unavailable':
    case 'in_flight':
      return [`Try again${retryAfter === undefined ? ' later' : ` in ${retryAfter} s`}.`]
    default:
      // Only a broker says more than its status.
      return code.startsWith('http_') ? ['No broker said so: what stands at MAYFLY_URL, or a proxy on the way to it, did.'] : []
  }
}
