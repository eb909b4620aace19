/** Rows of a page for whom no number was said. */
const usual = 50

/** What the lists of the ledger are told, from a query that the contract has checked. */
export function pageOf(query: { limit?: string | undefined; cursor?: string | undefined }): { limit: number; cursor?: string } {
  return { limit: query.limit === undefined ? usual : Number(query.limit), ...(query.cursor !== undefined && { cursor: query.cursor }) }
}

/** The same of the times that a list is asked for. */
export const betweenOf = ({ from, to }: { from: string | undefined; to: string | undefined }): { from?: Date; to?: Date } => ({
  ...(from !== undefined && { from: new Date(from) }),
  ...(to !== undefined && { to: new Date(to) }),
})
