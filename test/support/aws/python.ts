import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/** Where .ci/run leaves AWS's SDK for Python and its CLI: a folder of their own, and nothing is installed for Python. */
const folder = path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'mayfly/awscli-1.46.3')

/** What a process needs to find them; undefined where they are not there. */
export const awsPython: Readonly<Record<string, string>> | undefined = existsSync(path.join(folder, 'awscli')) ? { PYTHONPATH: folder } : undefined

if (!awsPython) {
  const advice = `no AWS CLI and no boto3: \`python3 -m pip install --target ${folder} awscli==1.46.3 boto3==1.44.8\``
  if (process.env['CI'] !== undefined) throw new Error(advice)
  process.stderr.write(`tests with them are left out: ${advice}\n`)
}
