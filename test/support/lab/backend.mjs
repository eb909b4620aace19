import { randomBytes } from 'node:crypto'

/**
 * A backend that really holds what it minted. It keeps the contract of docs/writing-a-provider.md; what goes wrong is added outside, in
 * faults.mjs. Each PUT of a living lease gives a fresh secret and kills the one before it: the hardest behaviour that the contract allows.
 *
 * @param now milliseconds since 1970, by the lab's own clock
 */
export function createBackend({ now }) {
  /** By lease: what is asked for, the secret that works, whether it was ended. An ended lease stays, so that it stays ended. */
  const leases = new Map()
  const minted = []

  const isAlive = (lease) => lease.secret !== undefined && !lease.ended && now() < Date.parse(lease.expires_at)

  function mint(id, asked) {
    const known = leases.get(id)
    if (known?.ended) return refusal(410, 'this lease has ended')
    if (Date.parse(asked.expires_at) <= now()) return refusal(422, 'this lease would be over at once')
    const secret = `lab-${randomBytes(24).toString('base64url')}`
    leases.set(id, { ...asked, lease: id, secret, ended: false })
    minted.push({ lease: id, task: asked.task, secret })
    return { status: 201, body: { credential: credentialOf(secret, asked), expires_at: asked.expires_at } }
  }

  function end(id) {
    leases.set(id, { ...leases.get(id), lease: id, ended: true })
    return { status: 204 }
  }

  function show(id) {
    const lease = leases.get(id)
    if (!lease) return refusal(404, 'no such lease')
    return { status: 200, body: { lease: id, state: isAlive(lease) ? 'live' : 'ended', minted: lease.secret !== undefined } }
  }

  return {
    /** Answers one call of the contract. */
    async answer({ call, lease, body }) {
      if (call === 'put') return mint(lease, JSON.parse(body))
      if (call === 'delete') return end(lease)
      if (call === 'get') return show(lease)
      return { status: 204 }
    },
    alive: async () => [...leases.values()].filter(isAlive).map(({ lease, task, secret }) => ({ lease, task, secret })),
    works: async (secret) => [...leases.values()].some((lease) => lease.secret === secret && isAlive(lease)),
    minted: () => minted,
  }
}

export const refusal = (status, title) => ({ status, problem: true, body: { title, status, alive: false } })

/** In the form that the grant's settings ask for, so that every kind of credential can be tried. */
function credentialOf(secret, { settings, expires_at }) {
  switch (settings.type) {
    case 'username_password':
      return { type: 'username_password', username: 'lab', password: secret }
    case 'aws_session':
      return { type: 'aws_session', access_key_id: 'LAB', secret_access_key: secret, session_token: secret, expiration: expires_at }
    case 'fields':
      return { type: 'fields', fields: { key: secret } }
    default:
      return { type: 'bearer_token', token: secret }
  }
}
