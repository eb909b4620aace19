/** A value that is read as it was last written, and heeded only some time later: what AWS calls eventual consistency. */
export class Settled<T> {
  #writes: { readonly value: T; readonly from: number }[]

  /** @param value heeded from the beginning */
  constructor(value: T) {
    this.#writes = [{ value, from: -Infinity }]
  }
  /** As it was last written. */
  get latest(): T {
    return this.#writes.at(-1)!.value
  }
  /** What is heeded at a moment. */
  at(now: number): T {
    return this.#writes.findLast(({ from }) => from <= now)!.value
  }
  write(value: T, from: number): void {
    this.#writes.push({ value, from })
  }
}
