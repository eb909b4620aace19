# Everything that a broker needs of an account, from the policies beside this folder: minter, revoker, and for each role of tasks a kill list that is
# its permissions boundary. Nothing here can be read as a secret.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  by_token = var.public_url != null
  issuer   = local.by_token ? trimprefix(var.public_url, "https://") : "broker.example.com"
  suffix   = local.by_token ? "-web-identity" : ""

  # What the files name, and what stands there for this account and this broker.
  names = tomap({
    "123456789012"       = data.aws_caller_identity.current.account_id
    "arn:aws:"           = "arn:${data.aws_partition.current.partition}:"
    "role/mayfly-broker" = "role/${coalesce(var.platform_role, "mayfly-broker")}"
    "broker.example.com" = local.issuer
    "mayfly:aws:"        = "mayfly:${var.provider_name}:"
    "mayfly-prod"        = var.external_id
  })

  # In one pass over each file: a value that holds one of these names itself stays as it is.
  written = {
    for name in ["minter-trust${local.suffix}", "revoker-trust${local.suffix}", "minter-policy", "revoker-policy", "broker-policy", "task-role-trust"] :
    name => join("", [
      for part in regexall("${join("|", keys(local.names))}|(?s:.)", file("${path.module}/../${name}.json")) : lookup(local.names, part, part)
    ])
  }
}

resource "aws_iam_openid_connect_provider" "broker" {
  count          = local.by_token ? 1 : 0
  url            = var.public_url
  client_id_list = ["sts.amazonaws.com"]
}

# Takes the two roles below, and may do nothing else.
resource "aws_iam_role_policy" "broker" {
  count  = local.by_token ? 0 : 1
  name   = "mayfly"
  role   = var.platform_role
  policy = local.written["broker-policy"]
}

resource "aws_iam_role" "minter" {
  name               = "mayfly-minter"
  assume_role_policy = local.written["minter-trust${local.suffix}"]
  depends_on         = [aws_iam_openid_connect_provider.broker]
}

resource "aws_iam_role_policy" "minter" {
  name   = "mayfly"
  role   = aws_iam_role.minter.id
  policy = local.written["minter-policy"]
}

resource "aws_iam_role" "revoker" {
  name               = "mayfly-revoker"
  assume_role_policy = local.written["revoker-trust${local.suffix}"]
  depends_on         = [aws_iam_openid_connect_provider.broker]
}

resource "aws_iam_role_policy" "revoker" {
  name   = "mayfly"
  role   = aws_iam_role.revoker.id
  policy = local.written["revoker-policy"]
}

resource "aws_iam_policy" "kill_list" {
  for_each    = var.roles
  name        = "mayfly-kill-list-${each.key}"
  description = "Written by Mayfly: who may do nothing any more. A permissions boundary, and nothing else: attached to anybody it would allow everything."
  policy      = file("${path.module}/../kill-list-boundary.json")

  lifecycle {
    # The broker writes it from here on. Put back to its first version it would let everybody in again who was shut out.
    ignore_changes = [policy]
  }
}

resource "aws_iam_role" "task" {
  for_each             = var.roles
  name                 = each.key
  path                 = "/mayfly/"
  assume_role_policy   = local.written["task-role-trust"]
  permissions_boundary = aws_iam_policy.kill_list[each.key].arn
  # A session of the minter's gets an hour at most, whatever stands here.
  max_session_duration = 3600
  # A trust policy cannot name a role that is not there.
  depends_on = [aws_iam_role.minter]
}

resource "aws_iam_role_policy" "task" {
  for_each = var.roles
  name     = "mayfly"
  role     = aws_iam_role.task[each.key].id
  policy   = each.value
}
