import { ProviderError, type Reservation } from '../provider.ts'

/** Seconds that a secret may live before it is renewed: for so long lives one of which nobody heard, because the broker died while it was made. */
export const longestFirstLife = 60

/** The time of a reservation. What counts is how long it is, by the store, so a broker or a Vault whose clock is wrong does no harm. */
export interface Life {
  /**
   * What is left of it now. @throws ProviderError where that is less than a second: Vault takes zero for "as long as possible". A refusal, for Vault was not
   * asked: whoever asks for a second, of which nothing is ever left, shows nothing about it
   */
  left(): { readonly seconds: number; after(granted: number): Date }
  /** The end, or a moment before it. */
  until(moment: Date | undefined): Date
}

export function lifeOf({ issuedAt, expiresAt, elapsed }: Reservation): Life {
  return {
    left() {
      // Before the question is sent: Vault counts from when it hears it, which has to leave an end within the reservation.
      const now = issuedAt.getTime() + elapsed()
      const seconds = Math.floor((expiresAt.getTime() - now) / 1_000)
      if (seconds < 1) throw new ProviderError('refused', 'No time is left for this lease', 'no')
      return { seconds, after: (granted) => earlier(expiresAt, new Date(now + granted * 1_000)) }
    },
    until: (moment) => (moment ? earlier(expiresAt, moment) : expiresAt),
  }
}

export const earlier = (one: Date, other: Date): Date => (other < one ? other : one)
