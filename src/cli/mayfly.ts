#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'

// Before anything is hot, so before anything else is imported: on Node 20 and 22 a lazy deoptimization of JavaScript that inlined a call into
// WebAssembly (Cedar, PGlite) ends the process under mixed load, without an exception.
setFlagsFromString('--no-turbo-inline-js-wasm-calls')

const { main } = await import('./program.ts')
process.exitCode = await main(process.argv)
