/** Whether a host, as a URL or a setting names it, is this machine by its very name: the only one to which secrets may travel in clear text. Asks no name server. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)
