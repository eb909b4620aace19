/** Raised with every change of the schema. It stands in the text, so that it is part of every set's digest and archived with it. */
export const schemaVersion = 1

/**
 * What a policy sees: the Cedar schema against which every set is checked before it is used, and every question when it is asked.
 *
 * Purpose and labels of a task are missing on purpose: text written by an agent never decides. `pop` says how possession of the workload
 * token was proven; it is always `none` so far.
 */
export const schemaText = `// Mayfly policy schema, version ${schemaVersion}
entity Group;
entity Kind { owner: String };
entity Agent in [Group] { owner: String, issuer: String, trust_domain?: String } tags String;
entity Grant in [Kind] { provider: String, sensitivity: String, standing: Bool };
entity Ask tags String;
type Context = { kind: Kind, duration: duration, ttl: duration, ask: Ask, pop: String, now: datetime };
action issue, renew appliesTo { principal: Agent, resource: Grant, context: Context };
action declare appliesTo { principal: Agent, resource: Kind, context: Context };
`
