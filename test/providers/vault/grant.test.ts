import { describe, expect, test } from 'vitest'
import { vaultGrant, vaultGrantFaults } from '../../../src/providers/vault/grant.ts'

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
