# A certificate with its key, made for one task.
path "pki/issue/service" {
  capabilities = ["update"]
}
