import type { AwsSettings } from './settings.ts'

/** @param role its name, with its path */
export const arnOfRole = ({ partition, account }: Pick<AwsSettings, 'partition' | 'account'>, role: string): string =>
  `arn:${partition}:iam::${account}:role/${role}`

/** @param policy name of a managed one, with its path */
export const arnOfPolicy = ({ partition, account }: Pick<AwsSettings, 'partition' | 'account'>, policy: string): string =>
  `arn:${partition}:iam::${account}:policy/${policy}`

/** Whether an identity is a session of a role: what it assumes is chained. */
export const isRoleSession = ({ arn }: { readonly arn: string }): boolean => /^arn:[a-z-]+:sts::\d+:assumed-role\//.test(arn)
