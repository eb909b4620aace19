import { type Lab, startLab } from '../support/lab.ts'
import { wireHttp } from '../support/tripwire.ts'
import { setStage, type Stage } from './stage.ts'

/** A stage before the lab. */
export interface Scene extends Stage {
  readonly lab: Lab
}

export async function openScene(): Promise<Scene> {
  const lab = await startLab()
  const stage = await setStage(async (tripwire) => {
    const wire = await wireHttp(lab.url, tripwire)
    return {
      site: { lab: wire.url, other: wire.url },
      alive: async () => (await lab.alive()).map(({ lease }) => lease),
      lingers: 'false',
      secrets: [],
      clear: () => lab.clear(),
      stop: async () => void (await Promise.all([lab.stop(), wire.stop()])),
    }
  })
  return { ...stage, lab }
}
