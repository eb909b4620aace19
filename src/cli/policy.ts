import { Command } from 'commander'
import type { DenialView, ReplayView } from '../http/contract.ts'
import { Unsuccessful } from './failure.ts'
import { counted, moment, paint, table, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'
import { cursorOption, filterOf, limitOption, paged, timed } from './lists.ts'

/** `mayfly policy check|replay|denials`. */
export const policyCommand = (outputOf: OutputOf): Command =>
  new Command('policy')
    .description('what decides')
    .addCommand(
      new Command('check')
        .description('check catalogue and policies, and run policies/cases.yaml; needs no broker')
        .requiredOption('--config <file>', 'mayfly.yaml')
        .action(async ({ config }: { config: string }, command: Command) => {
          const { checkPolicies } = await import('../main/policies.ts')
          const checked = await checkPolicies(config)
          const output = outputOf(command)
          output.result(checked, () => {
            const cases = checked.cases.map(({ name, ok, detail }) => `${mark(output, ok)} ${name}${ok ? '' : `: ${detail}`}`)
            const good = checked.cases.filter(({ ok }) => ok).length
            return [
              ...cases,
              `${counted(checked.policies, 'policy', 'policies')}, ${good} of ${checked.cases.length} cases as expected`,
              checked.digest,
            ].join('\n')
          })
          if (checked.cases.some(({ ok }) => !ok)) throw new Unsuccessful()
        }),
    )
    .addCommand(
      new Command('replay')
        .description('ask a stored decision again, of the policies that made it and of those in force today')
        .argument('<decision>', 'dec_…')
        .action(async (id: string, _: object, command: Command) => {
          const replayed = await connect().replayDecision(id)
          const output = outputOf(command)
          const { decision, archived, current } = replayed
          output.result(replayed, () =>
            [
              `${decision.id}  ${decision.agent}  ${decision.kind}  ${decision.action}  ${decision.decided_at}`,
              `kept      ${verdict({ ...decision, denied: decision.answers.filter(({ outcome }) => outcome === 'deny') })}  ${decision.policy_digest}`,
              `archived  ${verdict(archived)}  ${archived.same ? 'the same answer' : paint(output, 'red', 'ANOTHER ANSWER')}`,
              `today     ${verdict(current)}  ${current.same ? 'the same answer' : 'another answer'}  ${current.policy_digest}`,
            ].join('\n'),
          )
          if (!archived.same) throw new Unsuccessful()
        }),
    )
    .addCommand(denialsCommand(outputOf))

const denialsCommand = (outputOf: OutputOf): Command =>
  timed(new Command('denials').description('what was denied, newest first (operators and reviewers)'), 'decided')
    .option('--policy <id>', 'only where this policy forbade something of it')
    .option('--by-default', 'only where no policy permitted something of it, and none forbade that')
    .option('--agent <name>', 'to this agent')
    .option('--task <task>', 'about this task')
    .addOption(limitOption())
    .addOption(cursorOption())
    .action(async (filter: Record<string, string>, command: Command) => {
      const page = await connect().listDenials(filterOf(filter))
      outputOf(command).result(page, () => {
        const rows = page.items.map(({ id, decided_at, agent, kind, action, denied }) => [
          moment(decided_at),
          id,
          agent,
          kind,
          action,
          reasons(denied),
        ])
        return paged(table(['AT', 'DECISION', 'AGENT', 'KIND', 'ACTION', 'WHY'], rows), page)
      })
    })

const mark = (output: Output, ok: boolean): string => (ok ? paint(output, 'green', 'ok  ') : paint(output, 'red', 'FAIL'))

const verdict = ({ outcome, policies, denied }: Pick<ReplayView['archived'], 'outcome' | 'policies' | 'denied'>): string =>
  `${outcome} (${outcome === 'permit' ? policies.join(', ') : reasons(denied)})`

/** `invoices-export is forbidden by frozen-customers; no policy permits invoices-api` */
const reasons = (denied: DenialView['denied']): string =>
  denied
    .map(({ resource, policies, diagnostics }) => {
      if (diagnostics.length > 0) return `${resource} could not be decided: ${diagnostics.join(', ')} failed`
      return policies.length > 0 ? `${resource} is forbidden by ${policies.join(', ')}` : `no policy permits ${resource}`
    })
    .join('; ')
