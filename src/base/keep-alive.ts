/** Milliseconds that an idle connection is kept: less than the 5 s after which many servers close theirs, so no request meets a closing one. */
export const longestIdle = 4_000
