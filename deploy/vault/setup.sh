#!/bin/sh
# Sets up OpenBao or Vault, and one Postgres database behind it, for a Mayfly broker. As often as you like: what is there is brought to what stands
# beside this file, and no password or token changes.
#
#   BAO_ADDR=https://bao:8200 PGHOST=ledger.internal PGDATABASE=ledger deploy/vault/setup.sh
#
# Speaks with `bao` or `vault` as whoever they are logged in as, and with `psql` as whoever PGUSER and the rest of libpq's environment name: an
# administrator here and a superuser there. Also from the environment:
#   DATABASE_CONNECTION, DATABASE_ROLE   what the two are called in Vault, if not `ledger` and `ledger-read`. docs/vault.md ("In your own house") has where
#                      these names stand in the files beside this one
#   BAO_NAMESPACE      where all of it is set up, and where the broker logs in, if not in the root namespace
#   CONNECTION_URL     how OpenBao reaches the database, if not at the same address and with its certificate verified. {{username}} and {{password}} stay
#                      as they are: OpenBao fills them in
#   BROKER_TOKEN_FILE  writes a token for the broker into this file, unless it is there already. For development and tests: it lives as long as
#                      somebody renews it once a day. In production let the broker log in by jwt, kubernetes or approle, with the policy mayfly-broker.
set -eu
# Files hold a password for a moment, and the token for longer.
umask 077
here=$(dirname "$0")
connection=${DATABASE_CONNECTION:-ledger}
role=${DATABASE_ROLE:-ledger-read}
bao=$(command -v bao || command -v vault) || { echo 'neither bao nor vault is on the PATH' >&2; exit 1; }

# `vault` knows the same settings by names of its own alone: left without them it would speak with another server, or outside of the namespace.
for setting in $(env | sed -n 's/^BAO_\([A-Z_]*\)=.*/\1/p'); do
  eval "VAULT_$setting=\$BAO_$setting"
  export "VAULT_$setting"
done

did() { printf '%s\n' "$1"; }

enabled() { "$bao" secrets list -format=json | grep -q "\"$1/\""; }

# The broker's own rights, and one policy per grant of the catalogue: the name of each file is that of its policy. The role of tokens lets tasks have every
# policy mayfly-task-…, so that a file of a grant that you do not have opens what nobody asked for.
for policy in "$here"/mayfly-*.hcl; do
  name=$(basename "$policy" .hcl)
  "$bao" policy write "$name" "$policy" >/dev/null
  did "policy $name"
done

# Tokens of tasks. Orphans: a child would die with the broker's own token. Service tokens: batch tokens cannot be revoked. The explicit maximum is
# what no renewal passes: no shorter than the longest task of the catalogue.
"$bao" write auth/token/roles/mayfly-task @"$here/token-role.json" >/dev/null
did 'token role mayfly-task'

enabled database || "$bao" secrets enable database >/dev/null

# The password of Vault's login is made here, told to both, and forgotten. It goes through files and pipes: arguments can be read by every process.
if "$bao" read "database/config/$connection" >/dev/null 2>&1; then
  psql -X -q <"$here/postgres.sql"
  set --
  did "database $connection: keeps its password"
else
  secret=$(mktemp)
  trap 'rm -f "$secret"' EXIT
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$secret"
  { printf "\\\\set vault_password '%s'\n" "$(cat "$secret")" && cat "$here/postgres.sql"; } | psql -X -q
  set -- password=@"$secret"
  did "database $connection: a new password"
fi

# scram-sha-256: OpenBao hashes passwords itself, so that no statement log of the database ever has one. The template puts the lease into the name of the
# login, for sweep.sql, and keeps the random part whole.
[ -n "${CONNECTION_URL:-}" ] || CONNECTION_URL="postgresql://{{username}}:{{password}}@$PGHOST:${PGPORT:-5432}/$PGDATABASE?sslmode=verify-full"
"$bao" write "database/config/$connection" @"$here/database-config.json" connection_url="$CONNECTION_URL" "$@" >/dev/null
did "database connection $connection"

# 45 s: a login that was made while the broker died, and that nobody ever heard of, ends by itself five seconds after that. The broker renews its leases up to their
# task's deadline. Revocation is seven statements and not one: sessions are cut before NOLOGIN, for one of them may hold what it writes to; the COMMIT makes
# NOLOGIN true before sessions are cut for good, or a client that reconnects in between keeps a session that nothing ends; those that are being opened are
# ended too; each session is waited for, and looked for once more, so that none is alive when OpenBao answers; and what the login made goes with it, or
# leaves it a role without login and rights, so that no agent can keep its lease from ending. docs/vault.md has each line.
"$bao" write "database/roles/$role" @"$here/database-role.json" >/dev/null
did "database role $role"

if [ -n "${BROKER_TOKEN_FILE:-}" ]; then
  if [ -s "$BROKER_TOKEN_FILE" ]; then
    did "the broker's token: as it was"
  else
    # A file of either name may be there already, open to others: it would keep its mode.
    rm -f "$BROKER_TOKEN_FILE.new"
    "$bao" token create -orphan -no-default-policy -policy=mayfly-broker -period=24h -display-name=mayfly-broker -field=token >"$BROKER_TOKEN_FILE.new"
    mv -f "$BROKER_TOKEN_FILE.new" "$BROKER_TOKEN_FILE"
    did "the broker's token: $BROKER_TOKEN_FILE"
  fi
fi
