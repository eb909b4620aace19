-- What a database needs so that Vault can make logins in it, each for one task. For Postgres 15 and later: before, a login could grant its own role to others; as often as you like.
-- Run by a superuser with psql, connected to the database; setup.sh does, with a password that only Vault is told. By hand, the password in a file:
--   (printf "\\\\set vault_password '%s'\n" "$(cat vault-password)"; cat postgres.sql) | psql -d ledger
-- Without vault_password the login keeps the one that it has.
\set ON_ERROR_STOP on

-- Statements are not to be logged here, not even those that fail or take long, for one of them holds a password.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

-- Nobody else's function is called here, whoever may make some in `public`.
SET search_path = pg_catalog;

SELECT format('CREATE ROLE %I NOLOGIN', missing) FROM unnest(ARRAY['ledger_read', 'mayfly_vault']) AS missing
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = missing) \gexec

-- Rights belong to a group, and the logins of tasks are its members, by IN ROLE: making one is a single statement that touches no table. A GRANT for
-- each login would write to every table's list of rights, where two at once fail with "tuple concurrently updated", and would keep DROP ROLE from working.
GRANT USAGE ON SCHEMA public TO ledger_read;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ledger_read;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO ledger_read;
-- A login that owns something cannot be dropped. Postgres 15 and later ship like this.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Vault's login is no superuser and no member of the group: it makes and drops roles, and ends sessions.
ALTER ROLE mayfly_vault LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS;
-- It calls nobody else's function either: one in `public` that fits better than Postgres' own would run with its rights.
ALTER ROLE mayfly_vault SET search_path = pg_catalog;
-- To end the sessions of the logins that it made. Those of superusers stay out of its reach. Postgres asks for the right and not for the membership, so
-- that a login with NOINHERIT could not.
GRANT pg_signal_backend TO mayfly_vault;
\if :{?vault_password}
ALTER ROLE mayfly_vault PASSWORD :'vault_password';
\endif

-- Up to Postgres 15 whoever may make roles may make them members of any group. Later it takes the group's consent, which is all that is given here.
SELECT 'GRANT ledger_read TO mayfly_vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE'
  WHERE current_setting('server_version_num')::int >= 160000 \gexec
