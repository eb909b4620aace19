/** For a file that may be missing: undefined then. Any other error is thrown. */
export function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
