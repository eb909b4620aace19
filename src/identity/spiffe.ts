/** A SPIFFE ID taken apart. */
export interface SpiffeId {
  readonly trustDomain: string
  /** Starts with a slash, or is empty. */
  readonly path: string
}

/** Bytes that an implementation must support, and more than which none may produce. */
const longest = 2_048

/**
 * Reads a SPIFFE ID by the letter of its standard (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, section 2). Not with the URL class, which normalises:
 * `spiffe://Prod/a/../b` would be read as an identity that nobody issued.
 */
export function parseSpiffeId(text: unknown): SpiffeId | undefined {
  if (typeof text !== 'string' || text.length > longest) return undefined
  const [, trustDomain, path] = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)*)$/.exec(text) ?? []
  if (trustDomain === undefined || path === undefined) return undefined
  if (path.split('/').some((segment) => segment === '.' || segment === '..')) return undefined
  return { trustDomain, path }
}

export const isTrustDomain = (text: string): boolean => parseSpiffeId(`spiffe://${text}`)?.path === ''
