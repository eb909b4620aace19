/** For a file that may be missing: nothing then. Whatever else is wrong with it is thrown. */
export function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
