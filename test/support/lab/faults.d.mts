import type { ServerResponse } from 'node:http'

/** An answer as it is sent: without a body, with JSON, or JSON that says it is a problem. */
export interface FaultAnswer {
  readonly status: number
  readonly body?: unknown
  readonly problem?: boolean
  readonly headers?: Readonly<Record<string, string>>
}

export interface FaultOrder {
  readonly call: string
  readonly how: string
  readonly done?: boolean
  readonly times?: number
  readonly ms?: number
  readonly to?: string
}

export interface Faults {
  answer(call: string, response: ServerResponse, work: () => Promise<FaultAnswer | undefined>): Promise<unknown>
  order(fault: FaultOrder): void
  clear(): void
  untilHanging(call: string): Promise<void>
  release(): Promise<unknown>
}

export function createFaults(more?: Readonly<Record<string, (response: ServerResponse, done: FaultAnswer | undefined) => unknown>>): Faults

export function send(response: ServerResponse, answer: FaultAnswer | undefined): void
