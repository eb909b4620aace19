/**
 * What no session may do and no catalogue can lift: it makes another identity, or changes who may do what. What comes of it has rights and a life of its
 * own, so that nothing true could be said of when it ends: a session of a further role is bound neither by this policy nor by a deny on this role, and an
 * identity token is turned into whatever somebody else gives for it.
 */
const never = [
  'sts:Assume*',
  'sts:GetDelegatedAccessToken',
  'sts:GetFederationToken',
  'sts:GetScopedCredentials',
  'sts:GetSessionToken',
  'sts:GetWebIdentityToken',
  'iam:*',
  'organizations:*',
] as const

/** What gives a token, a grant or a connection of one service, which goes on working when the session is dead. */
const derived = [
  'codeartifact:GetAuthorizationToken',
  'ecr:GetAuthorizationToken',
  'kms:CreateGrant',
  'rds-db:connect',
  's3express:CreateSession',
  'ssm:StartSession',
] as const

/**
 * What outlives a session as well, and is not in the base deny, where each would take 25 of 2,048 characters from what a grant can say. A session is
 * refused these already, for a grant that does not name them does not allow them. Only the policy of a resource that names this very session passes over
 * that, and nobody can write such a one beforehand: names of sessions are random.
 */
const derivedElsewhere = [
  // Connections and their keys, as of `ssm:StartSession` and `rds-db:connect`.
  'ssm:ResumeSession',
  'ecs:ExecuteCommand',
  'ec2-instance-connect:OpenTunnel',
  'ec2-instance-connect:SendSSHPublicKey',
  'ec2-instance-connect:SendSerialConsoleSSHPublicKey',
  'dsql:DbConnect',
  'dsql:DbConnectAdmin',
  'elasticache:Connect',
  'memorydb:Connect',
  'redshift:GetClusterCredentials',
  'redshift:GetClusterCredentialsWithIAM',
  'redshift-serverless:GetCredentials',
  'ecr-public:GetAuthorizationToken',
  // Credentials of another role, or of a cluster, that end by a time of their own.
  'cognito-identity:GetOpenIdTokenForDeveloperIdentity',
  'eks-auth:AssumeRoleForPodIdentity',
  'elasticmapreduce:GetClusterSessionCredentials',
  'lakeformation:GetTemporaryGluePartitionCredentials',
  'lakeformation:GetTemporaryGlueTableCredentials',
  's3:GetDataAccess',
  // Policies of resources: whoever is written into one stays.
  'dynamodb:PutResourcePolicy',
  'ecr:SetRepositoryPolicy',
  'events:PutPermission',
  'kms:PutKeyPolicy',
  'lambda:AddPermission',
  'ram:CreateResourceShare',
  's3:PutAccessPointPolicy',
  's3:PutBucketAcl',
  's3:PutBucketPolicy',
  's3:PutObjectAcl',
  'secretsmanager:PutResourcePolicy',
  'sns:AddPermission',
  'sns:SetTopicAttributes',
  'sqs:AddPermission',
  'sqs:SetQueueAttributes',
] as const

/** IAM compares actions without regard to case. */
const plain = (action: string): string => action.toLowerCase()
const liftable = new Set([...derived, ...derivedElsewhere].map(plain))

/** How an action has to be kept from sessions, because what it gives goes on when they are dead: always, or unless the catalogue lifts it by name. */
export function outlives(action: string): 'never' | 'unless lifted' | undefined {
  const asked = plain(action)
  const forbidden = never.some((pattern) => (pattern.endsWith('*') ? asked.startsWith(plain(pattern).slice(0, -1)) : asked === plain(pattern)))
  return forbidden ? 'never' : liftable.has(asked) ? 'unless lifted' : undefined
}

export const sameAction = (one: string, other: string): boolean => plain(one) === plain(other)

/**
 * The actions of the base deny. As a deny, for that a policy does not allow something does not stop a resource policy that names the session. A service
 * cannot be a wildcard, so each is listed. The link with which a session signs in to the console needs no action and cannot be denied: the console acts
 * as the session, under this same policy.
 */
export const baseDeny = (lifted: readonly string[]): readonly string[] => [
  ...never,
  ...derived.filter((action) => !lifted.some((other) => sameAction(other, action))),
]
