/*
 * Loaded into a broker with NODE_OPTIONS=--import=…: its clock is ahead of the machine's by the milliseconds that stand in the file SHIFTED_CLOCK,
 * from the moment they are written. Timers do not notice, as they do not notice when a machine's clock is set.
 */
import { readFileSync } from 'node:fs'

const file = process.env['SHIFTED_CLOCK']
const Machine = globalThis.Date
const now = () => Machine.now() + Number(readFileSync(file, 'utf8'))

globalThis.Date = class Date extends Machine {
  constructor(...parts) {
    if (parts.length === 0) super(now())
    else super(...parts)
  }
  static now() {
    return now()
  }
}
