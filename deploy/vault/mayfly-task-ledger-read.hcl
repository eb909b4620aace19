# A login of the database, made for one task. One path per policy: a task's token has the policy of its grant and no other, not even `default`.
path "database/creds/ledger-read" {
  capabilities = ["read"]
}
