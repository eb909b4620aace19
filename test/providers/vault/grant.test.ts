import { describe, expect, test } from 'vitest'
import { vaultGrant } from '../../../src/providers/vault/grant.ts'

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
