/** Milliseconds that an idle connection is kept: below the 5 s after which many servers close theirs, so that a question never meets a closing one. */
export const longestIdle = 4_000
