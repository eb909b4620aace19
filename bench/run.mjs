import { startVitest } from 'vitest/node'

// The bench is TypeScript and uses the test support; vitest is what runs that here. It is no test: nothing in it passes or fails by the clock.
const benches = { '--vault': 'bench/vault.ts', '--aws': 'bench/aws.ts', '--evidence': 'bench/evidence.ts' }
const flags = ['--quick', '--raft']
const unknown = process.argv.slice(2).filter((argument) => !flags.includes(argument) && !Object.hasOwn(benches, argument))
if (unknown.length > 0) {
  console.error(`unknown argument ${unknown[0]}; usage: npm run bench [-- --quick | --vault [--raft] | --aws | --evidence]`)
  process.exit(2)
}
process.env.BENCH_QUICK = process.argv.includes('--quick') ? 'yes' : ''
// OpenBao on a disk, as it is where it is used, instead of in memory.
process.env.BENCH_RAFT = process.argv.includes('--raft') ? 'yes' : ''
const bench = benches[process.argv.find((argument) => Object.hasOwn(benches, argument))] ?? 'bench/bench.ts'
const vitest = await startVitest('test', [bench], { config: 'bench/vitest.config.ts', run: true, watch: false })
await vitest.close()
