/** One step of a JSON pointer (RFC 6901, section 3): into a key, or to an index. */
export const pointerStep = (key: string): string => `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`
