/** Forgets what was added longest ago until no more than `most` are left: a Map and a Set keep the order in which they were filled. */
export function forgetOldest<Key>(kept: Map<Key, unknown> | Set<Key>, most: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) return
    kept.delete(oldest)
  }
}
