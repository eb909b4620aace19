import { createHash } from 'node:crypto'
import type { Account, Bucket } from './account.ts'
import { authorize, type Caller } from './caller.ts'
import { parsePolicy } from './policy.ts'
import { Refusal } from './refusal.ts'
import type { SignedRequest } from './sigv4.ts'
import { xml } from './xml.ts'

export interface S3Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}

const namespace = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
const etag = (body: Buffer) => `"${createHash('md5').update(body).digest('hex')}"`

/** The little of S3 that shows whether credentials work: buckets, objects and bucket policies, with the bucket in the path. */
export function callS3(account: Account, caller: Caller, request: SignedRequest): S3Answer {
  const url = new URL(request.target, 'http://s3')
  const [, name = '', key = ''] = /^\/([^/]*)\/?(.*)$/s.exec(decodeURIComponent(url.pathname)) ?? []
  const call = { account, caller, request, name, key, query: url.searchParams }
  const subject = url.searchParams.has('policy') ? 'policy' : key ? 'object' : name ? 'bucket' : 'buckets'
  const verb = verbs[`${request.method} ${subject}`]
  if (!verb) throw new Refusal('NotImplemented', 'A header or query you provided implies functionality that is not implemented.', 501)
  return verb(call)
}

interface S3Call {
  readonly account: Account
  readonly caller: Caller
  readonly request: SignedRequest
  readonly name: string
  readonly key: string
  readonly query: URLSearchParams
}

const verbs: Readonly<Record<string, (call: S3Call) => S3Answer>> = {
  'GET buckets'(call) {
    permit(call, 's3:ListAllMyBuckets', '*')
    return page('ListAllMyBucketsResult', { Buckets: { Bucket: [...call.account.buckets.keys()].map((Name) => ({ Name })) } })
  },

  'PUT bucket'(call) {
    permit(call, 's3:CreateBucket', ofBucket(call))
    if (call.account.buckets.has(call.name)) throw new Refusal('BucketAlreadyOwnedByYou', 'The bucket you tried to create already exists.', 409)
    call.account.buckets.set(call.name, { objects: new Map(), policy: undefined })
    return { status: 200, headers: { location: `/${call.name}` } }
  },
  'HEAD bucket'(call) {
    permit(call, 's3:ListBucket', ofBucket(call))
    bucketOf(call)
    return { status: 200 }
  },
  'GET bucket'(call) {
    const prefix = call.query.get('prefix') ?? ''
    permit(call, 's3:ListBucket', ofBucket(call), { 's3:prefix': prefix })
    const found = [...bucketOf(call).objects].filter(([key]) => key.startsWith(prefix)).toSorted(([a], [b]) => (a < b ? -1 : 1))
    const Contents = found.map(([Key, body]) => ({ Key, Size: body.length, ETag: etag(body) }))
    return page('ListBucketResult', { Name: call.name, Prefix: prefix, KeyCount: found.length, MaxKeys: 1000, IsTruncated: false, Contents })
  },
  'DELETE bucket'(call) {
    permit(call, 's3:DeleteBucket', ofBucket(call))
    if (bucketOf(call).objects.size > 0) throw new Refusal('BucketNotEmpty', 'The bucket you tried to delete is not empty.', 409)
    call.account.buckets.delete(call.name)
    return { status: 204 }
  },

  'PUT policy'(call) {
    permit(call, 's3:PutBucketPolicy', ofBucket(call))
    bucketOf(call).policy = parsePolicy(call.request.body.toString(), 'resource')
    return { status: 204 }
  },
  'GET policy'(call) {
    permit(call, 's3:GetBucketPolicy', ofBucket(call))
    const { policy } = bucketOf(call)
    if (!policy) throw new Refusal('NoSuchBucketPolicy', 'The bucket policy does not exist', 404)
    return { status: 200, headers: { 'content-type': 'application/json' }, body: policy.text }
  },
  'DELETE policy'(call) {
    permit(call, 's3:DeleteBucketPolicy', ofBucket(call))
    bucketOf(call).policy = undefined
    return { status: 204 }
  },

  'PUT object'(call) {
    permit(call, 's3:PutObject', `${ofBucket(call)}/${call.key}`)
    if (String(call.request.headers['x-amz-content-sha256']).startsWith('STREAMING-')) throw new Refusal('NotImplemented', 'Only whole bodies.', 501)
    bucketOf(call).objects.set(call.key, call.request.body)
    return { status: 200, headers: { etag: etag(call.request.body) } }
  },
  'GET object': (call) => object(call),
  'HEAD object': (call) => object(call),
  'DELETE object'(call) {
    permit(call, 's3:DeleteObject', `${ofBucket(call)}/${call.key}`)
    bucketOf(call).objects.delete(call.key)
    return { status: 204 }
  },
}

function object(call: S3Call): S3Answer {
  permit(call, 's3:GetObject', `${ofBucket(call)}/${call.key}`)
  const body = bucketOf(call).objects.get(call.key)
  if (!body) throw new Refusal('NoSuchKey', 'The specified key does not exist.', 404)
  return { status: 200, headers: { 'content-type': 'application/octet-stream', etag: etag(body) }, body }
}

const ofBucket = (call: S3Call) => `arn:aws:s3:::${call.name}`

function permit(call: S3Call, action: string, resource: string, about: Readonly<Record<string, string>> = {}): void {
  authorize(call.account, call.caller, { action, resource, about, resourcePolicy: call.account.buckets.get(call.name)?.policy })
}

function bucketOf(call: S3Call): Bucket {
  const bucket = call.account.buckets.get(call.name)
  if (!bucket) throw new Refusal('NoSuchBucket', 'The specified bucket does not exist', 404)
  return bucket
}

function page(name: string, parts: Parameters<typeof xml>[1]): S3Answer {
  return { status: 200, headers: { 'content-type': 'application/xml' }, body: xml(name, parts, 'flat', namespace) }
}
