import { startVitest } from 'vitest/node'

// The bench is TypeScript and uses the test support; vitest is what runs that here. It is no test: nothing in it passes or fails by the clock.
const unknown = process.argv.slice(2).filter((argument) => argument !== '--quick' && argument !== '--vault')
if (unknown.length > 0) {
  console.error(`unknown argument ${unknown[0]}; usage: npm run bench [-- --quick | --vault]`)
  process.exit(2)
}
process.env.BENCH_QUICK = process.argv.includes('--quick') ? 'yes' : ''
const vitest = await startVitest('test', [process.argv.includes('--vault') ? 'bench/vault.ts' : 'bench/bench.ts'], { config: 'bench/vitest.config.ts', run: true, watch: false })
await vitest.close()
