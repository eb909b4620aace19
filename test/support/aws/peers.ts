import { localemu, startLocalemu } from './localemu.ts'
import { startAwsPeer } from './peer.ts'

/** STS, IAM and S3 of one account, on the loopback. It forgets everything when it stops. */
export interface RunningAws extends AsyncDisposable {
  readonly url: string
  readonly region: string
  readonly account: string
  /** May do everything. */
  readonly root: { readonly accessKeyId: string; readonly secretAccessKey: string }
  stop(): Promise<void>
}

/**
 * What AWS documents and not every peer does. Our own does all of it, and is right by the page that is named: what asks for more than a peer does is not
 * asked there.
 */
export interface Faithful {
  /** `aws:CurrentTime` is in every request (IAM User Guide, "AWS global condition context keys"). LocalEmu never has it: such a deny bites nobody. */
  readonly currentTime: boolean
  /** `s3:prefix` is in a ListBucket (Service Authorization Reference, "Amazon S3"). LocalEmu never has it, and lets nobody list who is bound to one. */
  readonly prefix: boolean
  /** `${*}`, `${?}` and `${$}` are `*`, `?` and `$` themselves (IAM User Guide, "Variables and tags"). To LocalEmu they match nothing. */
  readonly literals: boolean
  /** 6,144 and 10,240 characters without white space (IAM User Guide, "IAM and AWS STS quotas"). LocalEmu takes policies of any size. */
  readonly sizes: boolean
}

/** Every AWS that is here, for `describe.each`. The outside one was written by others from the same pages, and so judges our own as well. */
export const awsPeers: readonly { readonly name: string; readonly faithful: Faithful; start(): Promise<RunningAws> }[] = [
  { name: 'our own AWS', faithful: { currentTime: true, prefix: true, literals: true, sizes: true }, start: startAwsPeer },
  ...(localemu === undefined
    ? []
    : [{ name: 'LocalEmu', faithful: { currentTime: false, prefix: false, literals: false, sizes: false }, start: startLocalemu }]),
]

/** The status of an answer: 200, or of a refusal, with the name of any but the expected one. */
export async function statusOf(call: Promise<{ readonly $metadata: { readonly httpStatusCode?: number } }>): Promise<number | string> {
  try {
    const answer = await call
    // A body that nobody reads keeps its connection, and is an error once the peer stops.
    if ('Body' in answer) await (answer.Body as { transformToByteArray(): Promise<unknown> }).transformToByteArray()
    return answer.$metadata.httpStatusCode === 204 ? 200 : (answer.$metadata.httpStatusCode ?? 'no status')
  } catch (error) {
    const { name, $metadata, message } = error as { name: string; message: string; $metadata?: { httpStatusCode?: number } }
    return $metadata?.httpStatusCode === 403 && name.startsWith('AccessDenied') ? 403 : `${$metadata?.httpStatusCode} ${name}: ${message}`
  }
}
