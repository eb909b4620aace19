variable "public_url" {
  description = "public_url of the broker, where it is an OIDC provider of this account (identity.method: web_identity). Null: it runs on AWS, as platform_role."
  type        = string
  default     = null

  validation {
    # IAM compares it with `iss`, to the letter.
    condition     = var.public_url == null || can(regex("^https://[a-z0-9.-]+(/[A-Za-z0-9._-]+)*$", var.public_url))
    error_message = "Must be https, without a port, a query or a slash at its end."
  }
}

variable "platform_role" {
  description = "Name of the role of the pod, task or instance that the broker runs as. Needed where there is no public_url."
  type        = string
  default     = null
}

variable "provider_name" {
  description = "Name of the provider in mayfly.yaml: a part of the subject of the broker's tokens."
  type        = string
  default     = "aws"
}

variable "external_id" {
  description = "external_id of the provider in mayfly.yaml."
  type        = string
}

variable "roles" {
  description = "Roles of tasks, without their path, and the policy of what each can be given at most (JSON)."
  type        = map(string)
}
