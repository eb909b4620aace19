#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'

// Before anything is hot, so before anything else is imported: on Node 20 and 22 a lazy deoptimization of JavaScript that inlined a call into
// WebAssembly (Cedar, PGlite) ends the process under mixed load, without an exception.
setFlagsFromString('--no-turbo-inline-js-wasm-calls')
// V8 compiles a function of WebAssembly again, for speed, once it has run through so many bytes of it. At the 1.8 million of Node 20, and at the 13 million of
// Node 22 and 24, a start alone is enough for dozens of functions that are hardly called again: half a second of processor time. Whatever stays busy is still
// compiled.
setFlagsFromString('--wasm-tiering-budget=100000000')

// Without a listener it opens Node's debugger on loopback, and whoever is on this machine reads there what this process holds.
process.on('SIGUSR1', () => {})

const { main } = await import('./program.ts')
process.exitCode = await main(process.argv)
