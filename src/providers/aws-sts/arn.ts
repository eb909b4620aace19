import type { AwsSettings } from './settings.ts'

/** @param role its name, with its path */
export const arnOfRole = ({ partition, account }: Pick<AwsSettings, 'partition' | 'account'>, role: string): string =>
  `arn:${partition}:iam::${account}:role/${role}`
