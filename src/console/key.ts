import path from 'node:path'
import { openKeyFile } from '../base/key-file.ts'

/** Bytes of the key: as many as the digest that it keys has. */
const length = 32

/** The key of the console's sessions and links, in the keys folder. @throws ConfigurationError where the file is open to others, or not a key */
export const openConsoleKey = (folder: string): Promise<Uint8Array> => openKeyFile(path.join(folder, 'console.key'), length)
