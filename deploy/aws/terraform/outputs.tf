output "provider" {
  description = "What goes under `providers:` in mayfly.yaml."
  value = merge({
    name        = var.provider_name
    kind        = "aws-sts"
    region      = "the Region whose STS is to be asked"
    account     = data.aws_caller_identity.current.account_id
    partition   = data.aws_partition.current.partition
    external_id = var.external_id
    minter      = aws_iam_role.minter.name
    revoker     = aws_iam_role.revoker.name
    kill_list   = { carrier = "boundary" }
  }, local.by_token ? { identity = { method = "web_identity" } } : {})
}
