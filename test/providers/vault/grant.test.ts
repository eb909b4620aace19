import { describe, expect, test } from 'vitest'
import { vaultGrant, vaultGrantFaults } from '../../../src/providers/vault/grant.ts'

/** A grant of the catalogue, whose own part is right, as it is compared with the rest of its entry. */
const faultsOf = (own: object, { standing = false, parameters = [] as readonly string[] } = {}) =>
  vaultGrantFaults(vaultGrant.parse({ policy: 'p', ...own }), { standing, parameters: new Map(parameters.map((name) => [name, 32])) })

describe('a value in a KV store', () => {
  const app = { path: 'secret/data/app' }

  test('has to be declared a standing secret', () => {
    expect(faultsOf(app)).toEqual([
      { path: ['standing'], message: 'must be true: a value in a KV store lives on after the task, and nobody can take it back' },
    ])
    expect(faultsOf(app, { standing: true })).toEqual([])
  })

  test('has to be declared one at whatever path the catalogue says that there is one', () => {
    expect(faultsOf({ path: 'team/static/app', engine: 'kv' })).toMatchObject([{ path: ['standing'] }])
  })

  test.each(['database/creds/reader', 'pki/issue/service', 'ssh/sign/deploy', 'kubernetes/creds/builder'])(
    'is the only one: what is made at %s need not stand',
    (path) => expect(faultsOf({ path })).toEqual([]),
  )
})

describe('a grant', () => {
  const certificate = { path: 'pki/{role}/issue/{role}', data: { common_name: '{host}.example.com', ip_sans: '{address}', max: 2 } }

  test('names no parameter that its entry has not, in its path or its data, and each is told once', () => {
    expect(faultsOf(certificate, { parameters: ['host'] })).toEqual(
      ['role', 'address'].map((name) => ({ path: ['parameters'], message: `must have "${name}", which path or data names` })),
    )
    expect(faultsOf(certificate, { parameters: ['role', 'host', 'address'] })).toEqual([])
  })

  test.each([
    ['a mount that an agent fills in', { path: '{team}/creds/reader' }, 'path', 'must not leave its mount to a parameter'],
    [
      'a time of its own',
      { path: 'pki/issue/service', data: { ttl: '1h' } },
      'data',
      'must not say ttl: the broker asks for what is left of the task',
    ],
    ['data for a login', { path: 'database/creds/reader', data: { role: 'x' } }, 'data', 'is not sent where leased is read'],
    ['data for a stored value', { path: 'secret/data/app', data: { version: 2 } }, 'data', 'is not sent where kv is read'],
    [
      'a path that says nothing of an engine',
      { path: 'secret/app/settings' },
      'engine',
      'must say what is read there: leased, pki, ssh, kubernetes, kv',
    ],
    [
      'a path that may be of two engines',
      { path: 'teams/data/creds/reader' },
      'engine',
      'must say what is read there: leased, pki, ssh, kubernetes, kv',
    ],
    [
      'a folder of a KV store that is called as what another engine does',
      { path: 'secret/data/creds/app' },
      'engine',
      'must say what is read there: leased, pki, ssh, kubernetes, kv',
    ],
    ['an end that its engine has not', { path: 'ssh/sign/deploy', ended_by: 'lease' }, 'ended_by', 'must be time for ssh'],
  ])('with %s is refused', (_, own, at, message) => {
    expect(vaultGrant.safeParse({ policy: 'p', ...own }).error?.issues).toMatchObject([{ path: [at], message }])
  })
})

test.each([
  ['teams/data/creds/reader', 'leased'],
  ['secret/data/creds/app', 'kv'],
])('a path that may be of two engines, %s, is of the one that its grant says: %s', (path, engine) => {
  expect(vaultGrant.parse({ path, policy: 'p', engine }).engine).toBe(engine)
})

describe('a certificate that its serial number ends', () => {
  const parsed = (path: string) => vaultGrant.safeParse({ path, policy: 'p', engine: 'pki', ended_by: 'serial' })

  test.each([
    ['pki/issue/service', 'pki'],
    ['pki/sign/service', 'pki'],
    ['team/authority/issue/{role}', 'team/authority'],
    ['issue/issue/service', 'issue'],
    ['issuer/issue/service', 'issuer'],
    ['pki/issuer/next/issue/service', 'pki'],
    ['pki/issuer/{issuer}/sign/service', 'pki'],
  ])('is revoked at the mount that made it: %s', (path, authority) => {
    expect(parsed(path).data).toMatchObject({ endedBy: 'serial', authority })
  })

  test.each([
    ['whose mount an agent fills in', 'team/{name}/issue/service'],
    ['that neither issues nor signs', 'pki/sign-verbatim/service'],
  ])('is refused at a path %s', (_, path) => {
    expect(parsed(path).error?.issues).toMatchObject([{ path: ['path'] }])
  })

  test('is taken at any path where time ends it', () => {
    expect(vaultGrant.safeParse({ path: 'team/{name}/issue/service', policy: 'p' }).data).toMatchObject({ endedBy: 'time' })
  })
})

describe('the parameters of a grant', () => {
  const faultsOf = (own: object, ...names: readonly string[]) =>
    vaultGrantFaults(vaultGrant.parse({ policy: 'p', ...own }), { standing: false, parameters: new Map(names.map((name) => [name, 32])) })
  const certificate = { path: 'pki/issue/{role}', data: { common_name: '{host}.example.com', exclude_cn_from_sans: true } }

  test('are all that path and data name, and no others', () => {
    expect(faultsOf(certificate, 'role', 'host')).toEqual([])
    expect(faultsOf({ path: 'database/creds/reader' })).toEqual([])
  })

  test('are refused where path or data names one that there is not', () => {
    expect(faultsOf(certificate, 'role')).toEqual([{ path: ['parameters'], message: 'must have "host", which path or data names' }])
  })

  test.each([
    ['a path alone', { path: 'database/creds/reader' }, 'customer'],
    ['path and data', certificate, 'region'],
    ['what only looks like it', { path: 'database/creds/reader-customer' }, 'customer'],
  ])('are refused where one stands nowhere in %s, since it would narrow nothing', (_, own, unused) => {
    const message = 'stands neither in path nor in data: whoever reads a lease would believe that it narrows the secret'
    const used = own === certificate ? ['role', 'host'] : []
    expect(faultsOf(own, ...used, unused)).toEqual([{ path: ['parameters', unused], message }])
  })
})
