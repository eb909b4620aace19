import path from 'node:path'
import { openKeyFile } from '../base/key-file.ts'

/** Bytes of the key: as many as the digest that it keys has. */
const length = 32

/**
 * The key of the digests by which a leaked secret is recognised: 32 bytes in the keys folder. Outside the database, so that whoever reads the ledger
 * alone cannot test guesses. @throws ConfigurationError where the file is open to others, or not a key
 */
export const openDigestKey = (folder: string): Promise<Uint8Array> => openKeyFile(path.join(folder, 'digest.key'), length)
