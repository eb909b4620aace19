# A signature under the task's own SSH key: it ends with its time and cannot be taken back.
path "ssh/sign/deploy" {
  capabilities = ["update"]
}
