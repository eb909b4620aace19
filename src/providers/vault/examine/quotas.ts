import { z } from 'zod'
import type { Finding } from '../../provider.ts'

/** `data` of sys/quotas/rate-limit/:name, of Vault and of OpenBao. Seconds. */
export const quota = z.looseObject({
  name: z.string(),
  path: z.string(),
  rate: z.number(),
  interval: z.number().positive().nullish(),
  block_interval: z.number().nullish(),
})
export type Quota = z.output<typeof quota>

/** What ends leases has to get through. */
const ends = ['auth/token/revoke-accessor', 'sys/leases/revoke']

/** Questions in a second below which a storm of a thousand deadlines, two questions each, takes longer than the bootstrap time of a token. */
const fewest = 50

/** Quotas that hold up what ends tokens and leases: to Vault a broker is one client, whose agents together meet a limit meant for one. */
export function judgeQuotas(quotas: readonly Quota[]): Finding[] {
  const findings = quotas.flatMap((limit): Finding[] => {
    const held = ends.filter((path) => covers(limit.path, path))
    if (held.length === 0) return []
    const perSecond = limit.rate / (limit.interval ?? 1)
    const subject = `quota ${limit.name}`
    const remedy = `exempt ${held.join(' and ')}: give the quota the path of what it means`
    if ((limit.block_interval ?? 0) > 0)
      return [
        {
          level: 'fault',
          subject,
          message: `turns the broker away for ${limit.block_interval} s once it is met, and nothing ends in that time: ${remedy}`,
        },
      ]
    const level = perSecond < fewest ? 'fault' : 'warning'
    return [
      {
        level,
        subject,
        message: `allows ${perSecond} questions a second for all agents together, and what ends leases counts among them: ${remedy}`,
      },
    ]
  })
  return findings.length > 0 ? findings : [{ level: 'ok', subject: 'quotas', message: 'none holds up what ends tokens and leases' }]
}

/** Whether a quota of this path counts a question: one without a path counts all, one of a mount whatever is below it. */
export function covers(limited: string, path: string): boolean {
  if (limited === '') return true
  if (limited.endsWith('*')) return path.startsWith(limited.slice(0, -1))
  return path === limited || path.startsWith(limited.endsWith('/') ? limited : `${limited}/`)
}
