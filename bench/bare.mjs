import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { randomBytes } from 'node:crypto'
import postgres from 'postgres'

// What the machine allows: the same HTTP server, the same bodies parsed, the same commits and bytes through the same driver, and nothing else.
// Arguments: the Postgres URL, the bytes that one declaration sends to Postgres and those it is sent, the bytes of its answer.
const [url, sent, received, answered] = process.argv.slice(2)
const sql = postgres(url, { max: 10, onnotice: () => {} })
await sql`create table if not exists bare (id bigserial primary key, body text not null, state text not null default 'open')`
// Text that Postgres cannot compress: ours are many small columns, which it stores as they are.
const body = randomBytes(Number(sent)).toString('base64url').slice(0, Number(sent))
const answer = 'x'.repeat(Number(answered))

const app = new Hono()
app.post('/issue', async (context) => {
  await context.req.json()
  const [row] = await sql`insert into bare (body) values (${body}) returning id, left(body, ${Number(received)}) as body`
  return context.json({ id: row.id, answer }, 201)
})
app.post('/complete/:id', async (context) => {
  await context.req.json()
  const id = context.req.param('id')
  await sql`select body from bare where id = ${id}`
  await sql`update bare set state = 'completed' where id = ${id}`
  const [row] = await sql`select body from bare where id = ${id}`
  return context.json({ body: row.body })
})
app.post('/introspect/:id', async (context) => {
  await context.req.text()
  const [row] = await sql`select id, state from bare where id = ${context.req.param('id')}`
  return context.json({ active: row.state === 'open' })
})
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, ({ port }) => process.send({ port }))
