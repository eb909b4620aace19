import { isAwsLook, isAwsRequest } from './aws-requests.ts'
import { isVaultLook, isVaultRequest } from './vault-requests.ts'

/**
 * What each commit of the broker does, by what its statement writes and tells the history. The first that fits counts. The looks of the reaper
 * are commits only when they find something, and come whenever they like.
 */
const commits: readonly { readonly name: string; readonly look?: true; readonly is: RegExp }[] = [
  { name: 'open a cohort', is: /insert into kill_lists/ },
  { name: 'deny the sessions', is: /update role_sessions as session set denied_at = now\(\) from living/ },
  { name: 'close a cohort', is: /update kill_lists as list set cohort/ },
  { name: 'take the kill list', look: true, is: /update kill_lists as list set held_by = \$/ },
  { name: 'mean to write the kill list', is: /update kill_lists as list set generation/ },
  { name: 'say that the kill list was written', is: /'kill_list\.written'/ },
  { name: 'confirm the kill list', is: /update kill_lists as list set confirmed_generation/ },
  { name: 'put off the next comparison', look: true, is: /update kill_lists as list set check_at = least/ },
  { name: 'doubt what was written', look: true, is: /doubted[^]*update kill_lists/ },
  { name: 'ask for a comparison', is: /update kill_lists as list set check_at = date_trunc/ },
  { name: 'let the kill list go', look: true, is: /update kill_lists as list set held_by = null/ },
  { name: 'spend the token', is: /insert into spent_tokens/ },
  { name: 'announce the task', is: /'task\.opened'/ },
  { name: 'keep the denial', is: /'task\.denied'/ },
  { name: 'take the key', is: /'task\.reissued'/ },
  { name: 'announce anew', is: /idempotency_keys[^]*insert into leases/ },
  { name: 'renew the task', is: /'task\.renewed'/ },
  { name: 'refresh the lease', is: /'lease\.refreshed'/ },
  { name: 'conclude the refresh', is: /update leases as lease set expires_at = case when lease\.decision_id/ },
  { name: 'announce the lease', is: /insert into leases/ },
  { name: 'take the name of a session', is: /insert into role_sessions/ },
  { name: 'keep the decision', is: /'decision\.made'/ },
  { name: 'confirm', is: /'lease\.issued'/ },
  { name: 'journal a handle', is: /set handles = (lease\.)?handles/ },
  { name: 'flag what is stuck', look: true, is: /'lease\.stuck'/ },
  { name: 'start a revocation', is: /insert into revocations/ },
  { name: 'note that all of a revocation is ending', look: true, is: /update revocations[^]*set begun_at/ },
  { name: 'note the end of a revocation', look: true, is: /'revocation\.ended'/ },
  { name: 'close what is revoked', look: true, is: /from revocations[^]*skip locked[^]*'(task\.closing|lease\.' \|\| waiting\.state)/ },
  { name: 'end what nobody is asked about', look: true, is: /when 'active' then 'lease_expired'[^]*skip locked/ },
  { name: 'close what is overdue', look: true, is: /skip locked[^]*'task\.closing'/ },
  { name: 'close the task', is: /'task\.closing'/ },
  { name: 'expire what is over', look: true, is: /skip locked[^]*'lease\.' \|\| ended\.state/ },
  { name: 'close the lease', is: /'lease\.' \|\| waiting\.state/ },
  { name: 'record the end', is: /'lease\.' \|\| ended\.state/ },
  { name: 'claim what is due', look: true, is: /update leases[^]*skip locked/ },
  { name: 'put the lease back', is: /update leases/ },
  { name: 'let the key go', is: /update idempotency_keys set busy_until = null/ },
  { name: 'keep the key', is: /update idempotency_keys/ },
  { name: 'put the policies in force', is: /insert into policy_sets/ },
  { name: 'append to the log', look: true, is: /insert into checkpoints/ },
  { name: 'forget keys and tokens', look: true, is: /delete from idempotency_keys/ },
]

const writes = /\b(insert into|(?<!for )update|delete from) (?!of\b|skip\b)\w/

export const isLook = (name: string): boolean =>
  name === reading || isVaultLook(name) || isAwsLook(name) || commits.some((commit) => commit.name === name && commit.look)

/** Whether it is a commit that somebody waits for. */
export const isCommit = (name: string): boolean => commits.some((commit) => commit.name === name && !commit.look)

/** Whether it is asked of a backend, which goes by its method or, where it is Vault or AWS, by its name. */
export const isRequest = (name: string): boolean => /^[A-Z]+$/.test(name) || isVaultRequest(name) || isAwsRequest(name)

/** Whether somebody waits for it. */
export const isCommitOrRequest = (name: string): boolean => isCommit(name) || (isRequest(name) && !isLook(name))

const reading = 'read'

/** The name of what a statement does. One that writes and has no name here is called by its text, so that it is missed nowhere. */
export function nameOfStatement(text: string): string {
  if (!writes.test(text)) return reading
  return commits.find(({ is }) => is.test(text))?.name ?? text
}
