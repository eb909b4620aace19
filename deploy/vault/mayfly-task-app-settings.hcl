# A secret that stands (KV version 2): it is read for a task, and does not change when the task ends.
path "secret/data/app" {
  capabilities = ["read"]
}
