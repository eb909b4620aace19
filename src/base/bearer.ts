/** Whether this text can stand behind `Bearer` (RFC 6750, section 2.1): what a client sends and what a broker takes. */
export const isBearerToken = (text: string): boolean => /^[A-Za-z0-9\-._~+/]+=*$/.test(text)
