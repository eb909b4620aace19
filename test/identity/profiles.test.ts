import { describe, expect, test } from 'vitest'
import type { Issuer } from '../../src/identity/issuer.ts'
import { lift } from '../../src/identity/lift.ts'
import { attributesOf } from '../../src/identity/profiles.ts'
import { audience, corp, gateFor, goodClaims, now, signed, signingKey } from './given.ts'

const rsa = signingKey('k1', 'RS256')
const jwks = { keys: [rsa.jwk] }

describe('A projected token of Kubernetes', () => {
  const cluster: Issuer = { name: 'cluster', profile: 'kubernetes', issuer: 'https://kubernetes.default.svc', keys: { jwks } }
  const node = { name: 'node-7', uid: '646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1' }
  const pod = { name: 'invoice-bot-5d4f', uid: '5e0bd49b-f040-43b0-99b7-22765a53f7f3' }
  const serviceaccount = { name: 'invoice-bot', uid: '14ee3fa4-a7e2-420f-9f9a-dbc4507c3798' }
  const own = { namespace: 'finance', node, pod, serviceaccount }
  const claims = {
    iss: 'https://kubernetes.default.svc',
    aud: [audience],
    sub: 'system:serviceaccount:finance:invoice-bot',
    iat: now - 100,
    nbf: now - 100,
    exp: now + 3_500,
    jti: 'ea28ed49-2e11-4280-9ec5-bc3d1d84661a',
    'kubernetes.io': own,
  }
  const header = { alg: 'RS256', kid: 'k1' }

  test('proves service account, pod and node', async () => {
    const actor = await gateFor(cluster).accept(signed(rsa, claims, header))
    expect(actor.subject).toBe('system:serviceaccount:finance:invoice-bot')
    expect(actor.attributes).toEqual({
      iss: 'https://kubernetes.default.svc',
      sub: 'system:serviceaccount:finance:invoice-bot',
      'kubernetes.io/namespace': 'finance',
      'kubernetes.io/serviceaccount/name': 'invoice-bot',
      'kubernetes.io/serviceaccount/uid': serviceaccount.uid,
      'kubernetes.io/pod/name': pod.name,
      'kubernetes.io/pod/uid': pod.uid,
      'kubernetes.io/node/name': 'node-7',
      'kubernetes.io/node/uid': node.uid,
    })
    expect(Object.keys(actor.attributes).toSorted()).toEqual([...attributesOf(cluster)].toSorted())
  })

  test('is accepted again and again, as a pod presents it', async () => {
    const { accept } = gateFor(cluster)
    const token = signed(rsa, claims, header)
    expect(await accept(token)).toEqual(await accept(token))
  })

  test.each([
    ['the default life of a year', { ...claims, exp: now + 31_536_000, 'kubernetes.io': { ...own, warnafter: now + 3_500 } }, 'lives_too_long'],
    ['the audience of the API server', { ...claims, aud: ['https://kubernetes.default.svc'] }, 'wrong_audience'],
    ['another namespace in its subject', { ...claims, sub: 'system:serviceaccount:kube-system:invoice-bot' }, 'profile_rule'],
    ['a user for its subject', { ...claims, sub: 'alice' }, 'profile_rule'],
    ['no claims of Kubernetes', { ...claims, 'kubernetes.io': undefined }, 'profile_rule'],
    ['no uid', { ...claims, 'kubernetes.io': { ...own, serviceaccount: { name: 'invoice-bot' } } }, 'profile_rule'],
    ['no time of issue', { ...claims, iat: undefined }, 'no_issue_time'],
  ])('with %s is refused', async (_, payload, reason) => {
    expect(await gateFor(cluster).refusal(signed(rsa, payload, header))).toEqual({ reason, issuer: 'cluster' })
  })
})

describe('A token of GitHub Actions', () => {
  const ci: Issuer = { name: 'ci', profile: 'github-actions', keys: { jwks } }
  const claims = {
    jti: 'c8e5d0a8-1f0a-4b33-8b9e-5a1f4b0f6d11',
    sub: 'repo:octo-org/octo-repo:environment:prod',
    environment: 'prod',
    aud: audience,
    ref: 'refs/heads/main',
    sha: 'da39a3ee5e6b4b0d3255bfef95601890afd80709',
    repository: 'octo-org/octo-repo',
    repository_owner: 'octo-org',
    actor_id: '12',
    repository_visibility: 'private',
    repository_id: '74',
    repository_owner_id: '65',
    run_id: '1942',
    run_number: '10',
    run_attempt: '2',
    runner_environment: 'github-hosted',
    actor: 'octocat',
    workflow: 'release',
    head_ref: '',
    base_ref: '',
    event_name: 'workflow_dispatch',
    ref_type: 'branch',
    job_workflow_ref: 'octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main',
    iss: 'https://token.actions.githubusercontent.com',
    nbf: now - 600,
    iat: now - 5,
    exp: now + 300,
  }
  const header = { typ: 'JWT', alg: 'RS256', x5t: 'k1', kid: 'k1' }
  const token = (more: object = {}) => signed(rsa, { ...claims, ...more }, header)

  test('proves repository, workflow and run by ids that never change', async () => {
    const { attributes } = await gateFor(ci).accept(token())
    expect(attributes).toMatchObject({
      repository_id: '74',
      repository_owner_id: '65',
      job_workflow_ref: claims.job_workflow_ref,
      environment: 'prod',
      ref: 'refs/heads/main',
      run_id: '1942',
      run_attempt: '2',
      runner_environment: 'github-hosted',
    })
    expect(attributes).not.toHaveProperty('head_ref')
  })

  test('proves all that may be matched, where it has all that GitHub knows', async () => {
    const { attributes } = await gateFor(ci).accept(token({ ref_protected: 'true', workflow_ref: claims.job_workflow_ref }))
    expect(Object.keys(attributes).toSorted()).toEqual([...attributesOf(ci)].toSorted())
  })

  test('may have the numeric ids in its subject, as those of new repositories do', async () => {
    const sub = 'repo:octo-org@65/octo-repo@74:ref:refs/heads/main'
    expect((await gateFor(ci).accept(token({ sub, environment: undefined }))).subject).toBe(sub)
  })

  test('opens one call', async () => {
    const { accept, refusal } = gateFor(ci)
    await accept(token())
    expect(await refusal(token())).toEqual({ reason: 'replayed', issuer: 'ci' })
  })

  test.each([
    ['the default audience', { aud: 'https://github.com/octo-org' }, 'wrong_audience'],
    ['the subject of another repository', { sub: 'repo:octo-org/other:ref:refs/heads/main' }, 'profile_rule'],
    ['a repository that only begins alike', { sub: 'repo:octo-org/octo-repo-2:ref:refs/heads/main' }, 'profile_rule'],
    ['the id of another repository in its subject', { sub: 'repo:octo-org@65/octo-repo@75:ref:refs/heads/main' }, 'profile_rule'],
    ['the id of another owner in its subject', { sub: 'repo:octo-org@66/octo-repo@74:ref:refs/heads/main' }, 'profile_rule'],
    ['a subject that its organisation made up', { sub: 'repository_owner_id:65' }, 'profile_rule'],
    ['an owner who is not that of the repository', { repository_owner: 'evil-org' }, 'profile_rule'],
    ['no repository id', { repository_id: undefined }, 'profile_rule'],
    ['an id that is no number', { repository_id: '74 ' }, 'profile_rule'],
  ])('with %s is refused', async (_, more, reason) => {
    expect(await gateFor(ci).refusal(token(more))).toEqual({ reason, issuer: 'ci' })
  })
})

describe('A token of any OpenID issuer', () => {
  test('may be an access token', async () => {
    const { accept } = gateFor(corp(rsa))
    await accept(signed(rsa, goodClaims, { alg: 'RS256', kid: 'k1', typ: 'at+jwt' }))
    await accept(signed(rsa, goodClaims, { alg: 'RS256', kid: 'k1', typ: 'application/AT+JWT' }))
  })

  test('must have the claims that the configuration requires', async () => {
    const { accept, refusal } = gateFor(corp(rsa, { require: { tid: 't-1', groups: ['sec-ops', 'platform'] } }))
    const { attributes } = await accept(signed(rsa, { ...goodClaims, tid: 't-1', groups: ['staff', 'platform'] }))
    expect(attributes).toMatchObject({ tid: 't-1', groups: ['staff', 'platform'] })
    const wrong = [{ tid: 't-1' }, { tid: 't-2', groups: 'platform' }, { tid: ['t-11'], groups: ['platform'] }, { tid: 't-1', groups: ['Platform'] }]
    for (const claims of wrong) expect(await refusal(signed(rsa, { ...goodClaims, ...claims }))).toEqual({ reason: 'profile_rule', issuer: 'corp' })
  })

  test('proves what may be matched and nothing else: what any may have, what is required, and what is asked for', async () => {
    const issuer = corp(rsa, { require: { tid: 't-1' }, claims: ['org/team'] })
    const usual = { azp: 'a', client_id: 'b', groups: ['c'], roles: ['d'] }
    const { attributes } = await gateFor(issuer).accept(
      signed(rsa, { ...goodClaims, ...usual, tid: 't-1', org: { team: 'e' }, email: 'f@example.com' }),
    )
    expect(Object.keys(attributes).toSorted()).toEqual(['azp', 'client_id', 'groups', 'iss', 'org/team', 'roles', 'sub', 'tid'])
    expect([...attributesOf(issuer)].toSorted()).toEqual(Object.keys(attributes).toSorted())
  })

  test('says which of the claims that may be matched it has and cannot be read, and does not say so of others', async () => {
    const { accept } = gateFor(corp(rsa, { claims: ['team', 'org/unit'] }))
    const broken = { groups: ['staff', 'admins\n'], team: { name: 'x' }, 'org/unit': 'a', org: { unit: 'b' }, email: ['x', 1], roles: null }
    const { attributes, unreadable } = await accept(signed(rsa, { ...goodClaims, ...broken }))
    expect(unreadable).toEqual(['groups', 'team', 'org/unit'])
    expect(Object.keys(attributes).toSorted()).toEqual(['iss', 'sub'])
    expect(await accept(signed(rsa, { ...goodClaims, groups: ['staff'] }))).not.toHaveProperty('unreadable')
  })

  test('of AWS proves its principal and account', async () => {
    const require = { 'https://sts.amazonaws.com//aws_account': '123456789012' }
    const aws = corp(rsa, { require, claims: ['https://sts.amazonaws.com//principal_tags/team'], replay: 'single-use' })
    const sub = 'arn:aws:iam::123456789012:role/DataProcessingRole'
    const about = { aws_account: '123456789012', source_region: 'us-east-1', principal_tags: { team: 'data' } }
    const { accept, refusal } = gateFor(aws)
    const { attributes } = await accept(signed(rsa, { ...goodClaims, sub, 'https://sts.amazonaws.com/': about }))
    expect(attributes).toEqual({
      iss: goodClaims.iss,
      sub,
      'https://sts.amazonaws.com//aws_account': '123456789012',
      'https://sts.amazonaws.com//principal_tags/team': 'data',
    })
    const stranger = { ...about, aws_account: '999999999999' }
    expect((await refusal(signed(rsa, { ...goodClaims, sub, 'https://sts.amazonaws.com/': stranger })))?.reason).toBe('profile_rule')
  })

  test('of Google Cloud proves its machine', async () => {
    const google = { compute_engine: { project_id: 'finance-prod', project_number: 739_419_398_126, instance_id: '152986662232938449' } }
    const { accept } = gateFor(corp(rsa, { claims: ['google/compute_engine/project_id', 'google/compute_engine/project_number', 'email_verified'] }))
    const { attributes } = await accept(signed(rsa, { ...goodClaims, sub: '107517467455664443765', google, email_verified: true }))
    expect(attributes).toEqual({
      iss: goodClaims.iss,
      sub: '107517467455664443765',
      'google/compute_engine/project_id': 'finance-prod',
      'google/compute_engine/project_number': '739419398126',
      email_verified: 'true',
    })
  })
})

describe('A claim becomes an attribute', () => {
  test.each([
    ['as text', { a: 'b' }, 'a', 'b'],
    ['as a list of texts', { a: ['b', 'c'] }, 'a', ['b', 'c']],
    ['by its path', { a: { b: { c: 'd' } } }, 'a/b/c', 'd'],
    ['by a path with slashes in its names', { 'a/b': { c: 'd' } }, 'a/b/c', 'd'],
    ['as an empty list', { a: [] }, 'a', []],
    ['and is none where it is null', { a: null }, 'a', undefined],
    ['and is none where there is none of its path', { a: { b: 'c' } }, 'a/c', undefined],
    ['and is none where only every object has it', {}, 'constructor/name', undefined],
    ['unless it is an object', { a: { b: 'c' } }, 'a', null],
    ['unless it is a list of other things', { a: ['b', 1] }, 'a', null],
    ['unless it is a fraction', { a: 0.5 }, 'a', null],
    ['unless the ledger cannot keep it', { a: 'b\0' }, 'a', null],
    ['unless one of a list is half a surrogate pair', { a: ['b', '\ud83e'] }, 'a', null],
    ['unless two have its name', { 'a/b': 'c', a: { b: 'd' } }, 'a/b', null],
  ])('%s', (_, claims, name, attribute) => {
    expect(lift(claims, name)).toEqual(attribute)
  })
})
