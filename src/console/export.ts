import type { EntryFilter } from '../http/contract.ts'
import { asLines, csvHeader, csvRows } from '../http/export.ts'
import { createPlaces, type Room } from '../http/places.ts'
import { askForEntries } from '../http/questions.ts'
import { viewEntry } from '../http/views.ts'
import type { Ledger } from '../ledger/connect.ts'
import type { Listed } from '../ledger/lists.ts'
import type { Entry } from '../ledger/records.ts'

/** The forms in which `GET /ledger` can be had as a file: what stands above the first page, and a page. */
export const forms = {
  csv: { type: 'text/csv; charset=utf-8; header=present', before: csvHeader, write: csvRows },
  ndjson: { type: 'application/x-ndjson', before: '', write: asLines },
} as const

/** Downloads at once, and of one caller. */
const room: Room = { most: 4, share: 2 }

/** Milliseconds after which one that is not read is dropped. */
const patience = 60_000

/** Entries of one read: the most that a page of the API has. */
const batch = '500'

/** Whole answers of the ledger as files, page by page, none read before the one before it was taken: memory does not grow with the answer. */
export function createExports(ledger: Ledger) {
  const places = createPlaces('downloads', room)

  /** @param whose the caller's name @throws BrokerError `rate_limited`, `store_unavailable` */
  return async function download(filter: EntryFilter, form: keyof typeof forms, whose: string): Promise<ReadableStream<Uint8Array>> {
    const giveBack = places.take(whose)
    const { before, write } = forms[form]
    const texts = pagesOf(ledger, filter, ({ items }) => write(items.map(viewEntry)))
    // Before the answer begins: a store that is away is a 503, and not a file that ends.
    const first = await texts.next().catch((error: unknown) => {
      giveBack()
      throw error
    })
    return streamOf(before + String(first.value), texts, giveBack)
  }
}

async function* pagesOf(ledger: Ledger, filter: EntryFilter, write: (page: Listed<Entry>) => string): AsyncGenerator<string> {
  for (let cursor: EntryFilter['cursor']; ;) {
    const page = await askForEntries(ledger, { ...filter, limit: batch, cursor })
    yield write(page)
    if (page.next === null) return
    cursor = page.next
  }
}

/** @param left called once, when it is over in whatever way */
function streamOf(first: string, others: AsyncGenerator<string>, left: () => void): ReadableStream<Uint8Array> {
  let next: Promise<IteratorResult<string, unknown>> | undefined = Promise.resolve({ value: first })
  let unread: NodeJS.Timeout | undefined
  let ended = false
  const leave = (): boolean => {
    clearTimeout(unread)
    if (ended) return false
    left()
    return (ended = true)
  }
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        unread = setTimeout(() => leave() && controller.error(new Error('the client does not read')), patience)
      },
      async pull(controller) {
        unread?.refresh()
        try {
          const { value, done } = await (next ?? others.next())
          next = undefined
          if (ended) return
          if (done) return void (leave() && controller.close())
          controller.enqueue(encoder.encode(value))
        } catch (error) {
          // Breaks the download off, so that nobody takes what there is for the whole.
          if (leave()) controller.error(error)
        }
      },
      cancel: () => void leave(),
    },
    // Nothing ahead of the reader.
    { highWaterMark: 0 },
  )
}

const encoder = new TextEncoder()
