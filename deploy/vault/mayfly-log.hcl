# What a broker needs besides mayfly-broker.hcl where Vault keeps the key that signs its log (log_key in mayfly.yaml): two paths of one key, and nothing else
# of the engine. It cannot make, change, rotate, export or delete a key, so whoever takes over the broker signs with it for as long as they are there, and
# takes nothing along.

# Signs a checkpoint: one a second, for each broker, while there is work; while it catches up one for each 2,500 entries, several a second.
path "transit/sign/mayfly-log" {
  capabilities = ["update"]
}
# The public half, and whether the private one can leave Vault. Asked for when a broker starts.
path "transit/keys/mayfly-log" {
  capabilities = ["read"]
}
