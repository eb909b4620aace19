/** Whether a host, as a URL or a setting names it, is this machine by its very name: the only one to which secrets may travel in clear text. Asks no name server. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)

/**
 * Whether nobody can read or change what travels to an address: it is https, or http where nobody can stand in between.
 *
 * @param allowHttp http to anywhere: for a mesh that protects it by itself
 */
export function isSafeAddress(text: string, allowHttp = false): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, username, password } = new URL(text)
  return !username && !password && (protocol === 'https:' || (protocol === 'http:' && (allowHttp || isLoopback(hostname))))
}
