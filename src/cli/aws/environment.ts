import type { PrivateFolder } from '../exec/credential-files.ts'

/** What of AWS_* says where and how to call AWS, and never as whom. */
const harmless =
  /^AWS_((DEFAULT_)?REGION|DEFAULT_OUTPUT|PAGER|CLI_\w+|CA_BUNDLE|ENDPOINT_URL(_\w+)?|IGNORE_CONFIGURED_ENDPOINT_URLS|USE_(FIPS|DUALSTACK)_ENDPOINT|STS_REGIONAL_ENDPOINTS|RETRY_MODE|MAX_ATTEMPTS|DEFAULTS_MODE|SDK_UA_APP_ID)$/

/**
 * An environment in which an AWS SDK finds no credentials, so that those of the task are the only ones there are.
 *
 * The SDKs look in many places before they ask a container's endpoint, and each knows places of its own: whatever is not known to be harmless is taken
 * out, and what would be read from the home folder is read from an empty file.
 */
export async function withoutOtherAws(
  environment: Readonly<Record<string, string | undefined>>,
  folder: PrivateFolder,
): Promise<Record<string, string | undefined>> {
  await folder.write('aws-empty', '')
  const empty = folder.pathOf('aws-empty')
  return {
    ...Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('AWS_') || harmless.test(name))),
    AWS_CONFIG_FILE: empty,
    AWS_SHARED_CREDENTIALS_FILE: empty,
    // Python's SDK reads the file of its forerunner, ~/.boto, before it asks the endpoint.
    BOTO_CONFIG: empty,
    AWS_EC2_METADATA_DISABLED: 'true',
  }
}
