import { describe, expect, test } from 'vitest'
import type { ZodType } from 'zod'
import { vaultGrant } from '../../../src/providers/vault/grant.ts'
import { vaultSettings } from '../../../src/providers/vault/settings.ts'

/** What would lead to another path of an API, or to none, where it stood in one. */
const leadsAway = ['', '.', '..', '../x', 'x/../y', 'x/..', './x', '/x', 'x/', 'a//b', '//x'].concat(
  ['a?b', '?list=true', 'a#b', 'a;b', 'a&b', 'a=b', '%2e%2e', '%2e%2e%2fx', 'a%2fb', 'a%00b', '&#x2F;', 'a\\b', '..\\x'],
  ['a b', ' a', 'a ', 'a\n', '\na', 'a\r\nb', 'a\tb', 'a\u0000b', 'a\u2028b', 'é', '\uff0e\uff0e', '\u2215x'],
  ['~', '*', '+', ':', '@x', '{', '}', '{x', 'a{x}', '{X}'],
)

/** @returns where something is wrong */
const faultsIn = (shape: ZodType, input: object): string[] => (shape.safeParse(input).error?.issues ?? []).map(({ path }) => path.join('.'))

const inGrant = (own: object) => faultsIn(vaultGrant, { path: 'secret/data/app', policy: 'p', ...own })
const inSettings = (own: object) =>
  faultsIn(vaultSettings, { address: 'https://vault', auth: { method: 'token', token_file: '/token' }, token_role: 'r', ...own })

describe('a name that would lead to another path of the API of Vault', () => {
  test.each<[string, string, (text: string) => string[]]>([
    ['the path of a grant', 'path', (text) => inGrant({ path: `secret/data/${text}` })],
    ['the middle of the path of a grant', 'path', (text) => inGrant({ path: `secret/data/${text}/app` })],
    ['the mount of a grant', 'path', (text) => inGrant({ path: `${text}/data/app` })],
    ['the policy of a grant', 'policy', (text) => inGrant({ policy: text })],
    ['the token role', 'token_role', (text) => inSettings({ token_role: text })],
    ['the namespace', 'namespace', (text) => inSettings({ namespace: text })],
    [
      'the mount of a login by AppRole',
      'auth.mount',
      (mount) => inSettings({ auth: { method: 'approle', mount, role_id: 'x', secret_id_file: '/x' } }),
    ],
    ['the mount of a login by JWT', 'auth.mount', (mount) => inSettings({ auth: { method: 'jwt', mount, role: 'x' } })],
    ['the role of a login by JWT', 'auth.role', (role) => inSettings({ auth: { method: 'jwt', role } })],
    ['the mount of a login by Kubernetes', 'auth.mount', (mount) => inSettings({ auth: { method: 'kubernetes', mount, role: 'x' } })],
    ['the role of a login by Kubernetes', 'auth.role', (role) => inSettings({ auth: { method: 'kubernetes', role } })],
  ])('is refused in %s', (_, at, faultsWith) => {
    expect(faultsWith('a-b_c.1')).toEqual([])
    for (const text of leadsAway) expect(faultsWith(text), JSON.stringify(text)).toEqual([at])
  })

  test.each<[string, string, (text: string) => string[]]>([
    ['the policy of a grant', 'policy', (text) => inGrant({ policy: text })],
    ['the token role', 'token_role', (text) => inSettings({ token_role: text })],
    ['the role of a login', 'auth.role', (role) => inSettings({ auth: { method: 'jwt', role } })],
  ])('is refused in %s, which is one segment, where it is two', (_, at, faultsWith) => {
    expect(faultsWith('a/b')).toEqual([at])
  })
})

test.each(['address', 'nodes.0'])('what is more than a scheme, a host and a port is refused as %s', (at) => {
  const faultsWith = (node: string) => inSettings(at === 'address' ? { address: node } : { nodes: [node] })
  expect([faultsWith('https://vault:8200'), faultsWith('https://vault:8200/')]).toEqual([[], []])
  const after = ['/x', '//', '//x', '/../x', '/%2e%2e/x', '/%2f', '?a=b', '?', '/?list=true', '#x', '#', '/ x', '/x\n', '\\x', '@elsewhere', ':x']
  for (const text of after) expect(faultsWith(`https://vault${text}`), JSON.stringify(text)).toEqual([at])
  for (const text of [
    '',
    'vault',
    'vault:8200',
    '//vault',
    '/v1',
    'ftp://vault',
    'file:///v1',
    'https://',
    'https://one@vault',
    'https://one:two@vault',
  ])
    expect(faultsWith(text), JSON.stringify(text)).toEqual([at])
})

test('a node of another scheme than the address is refused, and of the same one is not', () => {
  const faultsWith = (address: string, ...nodes: readonly string[]) => inSettings({ address, nodes, allow_http: true })
  expect(faultsWith('https://vault', 'https://vault-2', 'http://vault-3', 'http://127.0.0.1')).toEqual(['nodes.1', 'nodes.2'])
  expect(faultsWith('http://vault', 'https://vault-2', 'http://vault-3')).toEqual(['nodes.0'])
})
