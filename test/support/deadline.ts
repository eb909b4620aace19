/**
 * SQL that lets the deadline of open tasks pass at one moment, and wakes the reapers. Their leases end with them, and are due as they would be had that been
 * the deadline from the start: those of the broker itself then, and the others, which are closed with their task, a minute later.
 *
 * @param which of the open tasks, as a condition
 * @param at that moment, as an expression
 */
export const deadlinePasses = (which = 'true', at = 'now()'): string => `
  with over as (update tasks set deadline = ${at} where state = 'open' and ${which} returning id),
  cut as (
    update leases set expires_at = least(expires_at, ${at}), due_at = case
      when state <> 'active' or expires_at <= now() then due_at
      when local then ${at}
      else ${at} + interval '1 minute' end
    where task_id in (select id from over)
  )
  select pg_notify('mayfly_due', '') from over`
