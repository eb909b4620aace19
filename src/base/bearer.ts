/** Whether this text is allowed after `Bearer` (RFC 6750, section 2.1), for clients that send it and brokers that accept it. */
export const isBearerToken = (text: string): boolean => /^[A-Za-z0-9\-._~+/]+=*$/.test(text)
