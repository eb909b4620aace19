import { z } from 'zod'

/** A path in the configuration; made absolute by whoever read the file it stands in. */
export const path = z.string().min(1).max(4_096)
