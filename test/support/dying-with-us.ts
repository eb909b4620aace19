import { existsSync } from 'node:fs'

/** Before a command: it is killed when this process ends, however that ends. On Linux alone. */
export const dyingWithUs: readonly string[] = existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'KILL'] : []
