import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['bench/bench.ts', 'bench/vault.ts', 'bench/aws.ts', 'bench/evidence.ts'],
    globalSetup: ['bench/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 1,
    testTimeout: 40 * 60_000,
    hookTimeout: 120_000,
    disableConsoleIntercept: true,
  },
})
