# What a broker may do, and nothing else: it reads no secret itself, writes no policy, and has no sudo.
# Its token carries this policy alone, or with mayfly-log.hcl where Vault keeps the key of the log; `default` would let it do more.

# Every task's token is made through this one role, which says which policies it may have and how long it may live (token-role.json).
# Not auth/token/create: that would make tokens with the broker's own rights.
path "auth/token/create/mayfly-task" {
  capabilities = ["update"]
}

# The two below take an accessor in the body, which no policy can narrow: whoever knows an accessor can end that token, whatever it is.
# The broker knows those that it journaled. Nothing here lets it list others: auth/token/accessors stays closed.

# Gives a task's token its deadline, so that Vault ends everything by itself if the broker never comes back.
path "auth/token/renew-accessor" {
  capabilities = ["update"]
}
# The first step of every end: from here on the task's token reads nothing more.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# The same with lease ids, in the body: ids that the broker does not know cannot be guessed, and listing them takes sudo.

# Moves a lease to its task's deadline.
path "sys/leases/renew" {
  capabilities = ["update"]
}
# Ends a lease; the answer is the evidence.
path "sys/leases/revoke" {
  capabilities = ["update"]
}

# The broker's own token: what it may do, how long it lives, and to live on.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# From here on for `mayfly provider check`: a broker runs without it. It shows how things are set up, and no secret: not database/config, which has
# the address and the login of the database, and no role that could be written.

# Whether this policy is what the broker has: too little, or too much. Tells a token about itself.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
# Whether the lease of a secret that was made for trial is gone.
path "sys/leases/lookup" {
  capabilities = ["update"]
}
# Whether tokens of tasks are orphans, end, and may have no other policy.
path "auth/token/roles/mayfly-task" {
  capabilities = ["read"]
}
# Whether a login would outlive a broker that died while it was made, how it is ended, and over which connection.
path "database/roles/+" {
  capabilities = ["read"]
}
# Whether certificates have a lease or can be revoked at all.
path "pki/roles/+" {
  capabilities = ["read"]
}
# How long a signed key lives, which nothing can shorten.
path "ssh/roles/+" {
  capabilities = ["read"]
}
# Whether a service account is made for each lease, and gone with it, or stays.
path "kubernetes/roles/+" {
  capabilities = ["read"]
}
# Whether a quota would hold up what ends tokens and leases.
path "sys/quotas/rate-limit" {
  capabilities = ["list"]
}
path "sys/quotas/rate-limit/+" {
  capabilities = ["read"]
}
