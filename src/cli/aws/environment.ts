import type { PrivateFolder } from '../exec/credential-files.ts'

/** What of AWS_* says where and how to call AWS, and never as whom. */
const harmless =
  /^AWS_((DEFAULT_)?REGION|DEFAULT_OUTPUT|PAGER|CLI_\w+|CA_BUNDLE|ENDPOINT_URL(_\w+)?|IGNORE_CONFIGURED_ENDPOINT_URLS|USE_(FIPS|DUALSTACK)_ENDPOINT|STS_REGIONAL_ENDPOINTS|RETRY_MODE|MAX_ATTEMPTS|DEFAULTS_MODE|SDK_UA_APP_ID)$/

/** What the SDKs of today read and what says as whom, wherever it is set: a shell that is told later may have more than this process. */
const asWhom = [
  'AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE AWS_CREDENTIAL_FILE AWS_ROLE_ARN',
  'AWS_ROLE_SESSION_NAME AWS_WEB_IDENTITY_TOKEN_FILE AWS_BEARER_TOKEN_BEDROCK AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI',
  'AWS_CONTAINER_AUTHORIZATION_TOKEN AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE',
].flatMap((line) => line.split(' '))

/**
 * What is to change in an environment so that an AWS SDK finds no credentials there, and those of the task are the only ones there are.
 *
 * The SDKs look in many places before they ask a container's endpoint, and each knows places of its own: whatever is not known to be harmless is taken
 * out, and what would be read from the home folder is read from an empty file.
 *
 * @returns undefined for what must not be there
 */
export async function withoutOtherAws(
  environment: Readonly<Record<string, string | undefined>>,
  folder: PrivateFolder,
): Promise<Record<string, string | undefined>> {
  await folder.write('aws-empty', '')
  const empty = folder.pathOf('aws-empty')
  const found = Object.keys(environment).filter((name) => name.startsWith('AWS_') && !harmless.test(name))
  return {
    ...Object.fromEntries([...asWhom, ...found].map((name) => [name, undefined])),
    AWS_CONFIG_FILE: empty,
    AWS_SHARED_CREDENTIALS_FILE: empty,
    // Python's SDK reads the file of its forerunner, ~/.boto, before it asks the endpoint.
    BOTO_CONFIG: empty,
    AWS_EC2_METADATA_DISABLED: 'true',
  }
}
