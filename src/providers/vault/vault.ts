import { createListeners } from '../../base/listeners.ts'
import { stopwatch } from '../../base/time.ts'
import { openAssertions } from '../assertion.ts'
import { refuseUnreadable } from '../files.ts'
import type { Provider, ProviderKind } from '../provider.ts'
import { selfOf, unexpected } from './answers.ts'
import { createBacklog } from './backlog.ts'
import type { Question } from './client.ts'
import { revocationOf, type VaultGrant, vaultGrant, vaultGrantFaults } from './grant.ts'
import { createLate } from './late.ts'
import { longestFirstLife } from './life.ts'
import { createReads } from './reads.ts'
import { sharedAudience, signedFor, type VaultSettings, vaultSettings } from './settings.ts'
import { createSlots } from './slots.ts'
import { createTransitKey, type TransitSettings, transitSettings } from './transit.ts'

/** Milliseconds for which a database may let in what Vault has given up, beyond its own end (`VALID UNTIL` of its role). */
const afterlife = 5_000

/** Seconds. Vault takes the same assertion as often as it is shown (seen on OpenBao 2.7.2). */
const assertionLife = 60

/** HashiCorp Vault and OpenBao: secrets that they make for one task, and end with it. */
export const vaultKind: ProviderKind<VaultSettings, VaultGrant> = {
  kind: 'vault',
  settings: vaultSettings,
  settingsFaults: sharedAudience,
  grant: vaultGrant,
  grantFaults: vaultGrantFaults,
  signingKey: transitSettings,
  async connect(name, settings, surroundings) {
    const { auth, ca, mtls, timeout, concurrency, namespace, token_role: tokenRole } = settings
    await refuseUnreadable(name, {
      'auth.token_file': 'token_file' in auth ? auth.token_file : undefined,
      'auth.secret_id_file': 'secret_id_file' in auth ? auth.secret_id_file : undefined,
      ca,
      'mtls.cert': mtls?.cert,
      'mtls.key': mtls?.key,
    })
    // Only where a Vault is configured: nobody else needs them, and they bring a library that takes longer to load than all of this folder.
    const [{ createAsk }, { createIdentity }, { createEnding }, { createTaskTokens }, { createSecrets }, { createMint }] = await Promise.all([
      import('./client.ts'),
      import('./identity.ts'),
      import('./end.ts'),
      import('./task-token.ts'),
      import('./secret.ts'),
      import('./mint.ts'),
    ])
    const ask = createAsk(settings, (request, outcome, seconds) => surroundings.asked?.(name, request, outcome, seconds))
    const audience = signedFor(settings)
    const assertions = audience === undefined ? undefined : await openAssertions(name, { audience, life: assertionLife }, surroundings)
    const identity = createIdentity(name, settings, ask, assertions?.sign, stopwatch())
    const mostAtOneBackend = Math.max(1, Math.floor((concurrency * 3) / 4))
    // A mint that was cut off in its last moment, the first life of what it read, and what the database adds to it.
    const undecided = timeout + longestFirstLife * 1_000 + afterlife
    const reads = createReads()
    const recovery = createListeners()
    const backlog = createBacklog(surroundings.clock, recovery.call)
    const ending = createEnding(name, identity, createSlots(mostAtOneBackend), backlog, reads, undecided, surroundings.clock)
    const late = createLate()
    const tokens = createTaskTokens(name, identity, ending, { tokenRole, namespace, timeout })
    const secrets = createSecrets({ name, ask, identity, ending, namespace, timeout, reads, late })
    const mint = createMint({ name, tokens, secrets, slots: createSlots(mostAtOneBackend), reads, mostReads: concurrency * 4, late })

    return {
      name,
      kind: 'vault',
      revocation: (grant) => revocationOf(grant),
      local: false,
      // `VALID UNTIL` refuses new logins and lets open sessions be. A certificate has no lease, and nothing accepts it past its end.
      mustConfirm: 'lease_id',
      limits: { timeout, concurrency },
      mint,
      revoke: ending.revoke,
      recover: ending.recover,
      onRecovery: recovery.add,
      settled: late.settled,
      async check(signal) {
        const answer = await identity.ask({ path: 'auth/token/lookup-self' }, signal)
        if (!selfOf(answer)) throw unexpected(name, 'word about the token of the broker', answer, 'no')
      },
      signingKey: (key) => createTransitKey(name, key as TransitSettings, identity),
      ...(assertions && { tokens: assertions.tokens }),
      async examine(grants) {
        // Only where somebody checks: it has as much to load as the rest.
        const { examine } = await import('./examine/examine.ts')
        const askAs = (question: Question) => identity.ask(question, AbortSignal.timeout(timeout))
        return await examine({ name, settings, clock: surroundings.clock, askOpenly: ask, ask: askAs, mint, ending }, grants)
      },
    } satisfies Provider<VaultGrant>
  },
}
