import { configDefaults, defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // They ask AWS itself, in an account that somebody has to name (docs/aws-live.md). Left out and not skipped: a skipped test is a failure in CI.
    exclude: [...configDefaults.exclude, ...(process.env['MAYFLY_LIVE_AWS'] === '1' ? [] : ['test/live/**'])],
    globalSetup: ['test/support/global-setup.ts'],
    // Forks with the flags that src/cli/mayfly.ts sets for the product: without the first V8 dies under mixed load of JavaScript and WebAssembly.
    pool: 'forks',
    execArgv: ['--no-turbo-inline-js-wasm-calls', '--wasm-tiering-budget=100000000'],
    // Each worker holds an embedded store of about 345 MB, and the reference machine has two cores.
    maxWorkers: 2,
    // What a test waits for it looks for itself; these only end one that hangs, and leave room for a machine on which others work too.
    testTimeout: 120_000,
    hookTimeout: 240_000,
    // The default of a second is a promise about the machine, not about the product.
    expect: { poll: { timeout: 30_000 } },
  },
})
