import { expect, test } from 'vitest'
import { awsKind } from '../../../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings, bareName } from '../../../src/providers/aws-sts/settings.ts'

const minimum = { region: 'eu-central-1', account: '111122223333' }
const faultsOf = (changes: object): string[] =>
  awsSettings.safeParse({ ...minimum, ...changes }).error?.issues.map(({ path }) => path.join('.')) ?? []

test('a kill list stands in the boundary of each role by default, and nowhere unless it is asked for', () => {
  expect(awsSettings.parse(minimum).kill_list).toBeUndefined()
  expect(awsSettings.parse({ ...minimum, kill_list: {} }).kill_list).toEqual({ carrier: 'boundary', policy: 'mayfly-kill-list-{role}' })
  expect(awsSettings.parse({ ...minimum, kill_list: { carrier: 'inline' } }).kill_list).toMatchObject({ policy: 'mayfly-kill-list' })
})

test.each([
  ['a boundary that several roles would share', { kill_list: { policy: 'kill-list' } }, 'kill_list.policy'],
  ['an inline policy with a path', { kill_list: { carrier: 'inline', policy: 'mayfly/kill-list' } }, 'kill_list.policy'],
  ['a name that no policy can have', { kill_list: { policy: 'kill list {role}' } }, 'kill_list.policy'],
  ['a capacity that not even one denial fits into', { kill_list: { capacity: 100 } }, 'kill_list.capacity'],
  ['an IAM in clear text on another machine', { iam_endpoint: 'http://iam.example.com' }, 'iam_endpoint'],
])('%s is refused', (_, changes, path) => {
  expect(faultsOf(changes)).toEqual([path])
})

test('a managed policy may have a path, and stands for a role without its own', () => {
  expect(faultsOf({ kill_list: { policy: 'mayfly/kill-list-{role}' } })).toEqual([])
  expect(['mayfly/eu/invoices', 'invoices'].map(bareName)).toEqual(['invoices', 'invoices'])
})

test('a role is the same in whatever Region and under whatever path, and belongs to one provider of its account where its sessions are denied', () => {
  const grantOf = (role: string) => awsGrant.parse({ roles: [role, 'reports'], allow: [{ actions: ['s3:GetObject'], resources: ['*'] }] })
  const things = (changes: object, role = 'mayfly/invoices') => awsKind.things!(awsSettings.parse({ ...minimum, ...changes }), grantOf(role))
  const texts = (...about: Parameters<typeof things>) => things(...about).map(({ thing }) => thing)
  expect(things({ kill_list: {} })).toEqual(things({ kill_list: { carrier: 'inline' }, region: 'us-east-1' }))
  expect(things({ kill_list: {} })[0]).toMatchObject({
    thing: expect.stringContaining('the role invoices of the account'),
    name: 'mayfly/invoices',
    alone: true,
  })
  expect(texts({}), 'under another path').toEqual(texts({}, 'invoices'))
  expect(texts({})).not.toEqual(texts({ account: '999999999999' }))
  expect(
    things({}).map(({ alone }) => alone),
    'where they are not',
  ).toEqual([false, false])
})
