import { type Account, identifier, secretKey, type User } from './account.ts'
import type { IamAction } from './iam.ts'
import { deleteInline, putInline } from './iam-inline.ts'
import type { Policy } from './policy.ts'
import type { Form } from './query.ts'
import { absent, inUse, taken, tooMany } from './refusal.ts'
import { Settled } from './settled.ts'

/** Users, their inline policies and their keys. */
export const userActions: Readonly<Record<string, IamAction>> = {
  CreateUser(account, form) {
    const name = form.text('UserName')
    if (account.users.has(name)) throw taken(`User with name ${name}`)
    const inline = new Settled<ReadonlyMap<string, Policy>>(new Map())
    const user: User = { name, id: identifier('AIDA'), arn: account.iamArn(`user/${name}`), createdAt: new Date(account.now()), inline }
    account.users.set(name, user)
    return { User: shown(user) }
  },
  GetUser: (account, form) => ({ User: shown(userOf(account, form)) }),
  DeleteUser(account, form) {
    const user = userOf(account, form)
    if (keysOf(account, user).length > 0) throw inUse('Cannot delete entity, must delete access keys first.')
    if (user.inline.latest.size > 0) throw inUse('Cannot delete entity, must delete policies first.')
    account.users.delete(user.name)
    return undefined
  },
  PutUserPolicy(account, form) {
    return putInline(account, form, userOf(account, form), 'user', 2048)
  },
  DeleteUserPolicy(account, form) {
    return deleteInline(account, form, userOf(account, form), 'user')
  },
  CreateAccessKey(account, form) {
    const user = userOf(account, form)
    if (keysOf(account, user).length === 2) throw tooMany('Cannot exceed quota for AccessKeysPerUser: 2')
    const key = { id: identifier('AKIA'), secret: secretKey(), owner: user }
    account.keys.set(key.id, key)
    return { AccessKey: { UserName: user.name, AccessKeyId: key.id, Status: 'Active', SecretAccessKey: key.secret } }
  },
  DeleteAccessKey(account, form) {
    const user = userOf(account, form)
    const id = form.text('AccessKeyId')
    if (account.keys.get(id)?.owner !== user) throw absent(`Access Key with id ${id}`)
    account.keys.delete(id)
    return undefined
  },
}

function userOf(account: Account, form: Form): User {
  const name = form.text('UserName')
  const user = account.users.get(name)
  if (!user) throw absent(`user with name ${name}`)
  return user
}

const keysOf = (account: Account, user: User) => [...account.keys.values()].filter(({ owner }) => owner === user)

const shown = (user: User) => ({ Path: '/', UserName: user.name, UserId: user.id, Arn: user.arn, CreateDate: user.createdAt })
