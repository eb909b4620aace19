import { readFileSync } from 'node:fs'
import path from 'node:path'

/** Of this program, as package.json has it, which lies beside both `src` and `dist`. */
export const version = (JSON.parse(readFileSync(path.join(import.meta.dirname, '../../package.json'), 'utf8')) as { version: string }).version
