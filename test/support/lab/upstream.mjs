import { request } from 'node:http'

/**
 * Another backend of the same contract behind the lab's faults: the example server of the documentation. The lab sees every secret on its way,
 * also those whose answer it then loses, and asks the resource that the secrets open which of them work.
 */
export function createUpstream(url, token) {
  const minted = []
  /** What was found dead: it stays so, and need not be asked about again. */
  const dead = new Set()

  async function works(secret) {
    return (await ask(new URL('/hello', url), 'GET', secret)).status === 200
  }

  return {
    async answer({ call, path, body }) {
      const answer = await ask(new URL(path, url), call === 'put' ? 'PUT' : call === 'delete' ? 'DELETE' : 'GET', token, body || undefined)
      if (call === 'put' && answer.status < 300) {
        minted.push({ lease: path.split('/').at(-1), task: JSON.parse(body).task, secret: answer.body.credential.token })
      }
      return answer
    },
    async alive() {
      const candidates = minted.filter((credential) => !dead.has(credential))
      const working = await Promise.all(candidates.map(({ secret }) => works(secret)))
      candidates.filter((_, at) => !working[at]).forEach((credential) => dead.add(credential))
      return candidates.filter((_, at) => working[at])
    },
    works,
    minted: () => minted,
  }
}

function ask(url, method, token, body) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, ...(body ? { 'content-type': 'application/json' } : {}) }
    const question = request(url, { method, headers }, async (response) => {
      const text = Buffer.concat(await response.toArray()).toString()
      const type = response.headers['content-type'] ?? ''
      resolve({ status: response.statusCode, problem: type.includes('problem'), body: type.includes('json') ? JSON.parse(text) : undefined })
    })
    question.on('error', reject)
    question.end(body)
  })
}
