/** An Ed25519 key that never leaves the place where it is kept, and signs there. Whatever it throws means that it does not do so now. */
export interface SigningKey {
  /** The 32 bytes by which its signatures are verified (RFC 8032, 5.1.5). Always the same. */
  publicKey(signal: AbortSignal): Promise<Uint8Array>
  /** 64 bytes (RFC 8032, 5.1.6). Whoever asked verifies them. */
  sign(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
}
