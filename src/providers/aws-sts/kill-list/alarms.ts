/** What is noticed of a kill list, by the names under which it is counted. All of them begin at 0, so that an alarm sees the first. */
export const listAlarms = [
  'kill_list_drift',
  'kill_list_not_attached',
  'kill_list_not_written',
  'kill_list_not_compared',
  'kill_list_not_tidied',
  'kill_list_rung',
] as const

export type ListAlarm = (typeof listAlarms)[number]
