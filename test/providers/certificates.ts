import { execFile, execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Whether this machine can make certificates: Node cannot by itself. */
export function canMakeCertificates(): boolean {
  try {
    execFileSync('openssl', ['version'])
    return true
  } catch {
    return false
  }
}

/** Paths of a certificate and its key, PEM. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
}

/** An authority of its own in this folder, and certificates that it signed: for 127.0.0.1 and for any name. Valid for two days. */
export async function createAuthority(folder: string, name: string) {
  const authority = filesIn(folder, name)
  await openssl(authority, '-subj', `/CN=${name}`)
  return {
    ca: authority.cert,
    async issue(subject: string, address: string): Promise<CertificateFiles> {
      const files = filesIn(folder, `${name}-${subject}`)
      const extensions = ['-addext', `subjectAltName=${address}`, '-addext', 'basicConstraints=critical,CA:FALSE']
      await openssl(files, '-subj', `/CN=${subject}`, '-CA', authority.cert, '-CAkey', authority.key, ...extensions)
      return files
    },
  }
}

const filesIn = (folder: string, name: string): CertificateFiles => ({ cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) })

const openssl = ({ cert, key }: CertificateFiles, ...options: string[]) =>
  promisify(execFile)('openssl', [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    key,
    '-out',
    cert,
    ...options,
  ])
