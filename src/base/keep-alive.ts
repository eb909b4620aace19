/** Milliseconds that an idle connection is kept: below the 5 s after which many servers close theirs and a request would fail. */
export const longestIdle = 4_000
