-- Two logins of one database: the owner changes the schema (`mayfly migrate`), the application runs the broker and cannot change history.
-- Run as a superuser, connected to the new database, before the first `mayfly migrate`. The passwords come from files through a pipe, since every process
-- can read the arguments of another:
--   (umask 077 && openssl rand -hex 24 > owner_password && openssl rand -hex 24 > app_password) && createdb mayfly
--   { printf "\\\\set %s '%s'\\n" owner_password "$(cat owner_password)" app_password "$(cat app_password)" && cat deploy/postgres/roles.sql; } |
--     psql -X -v ON_ERROR_STOP=1 -d mayfly

-- Statements are not to be logged here, not even those that fail or take long, for two of them hold a password.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

-- mayfly_app is the role whose rights the migrations set; it cannot log in itself.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mayfly_app') THEN
    CREATE ROLE mayfly_app NOLOGIN;
  END IF;
END
$$;

CREATE ROLE mayfly_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE mayfly_broker LOGIN PASSWORD :'app_password' CONNECTION LIMIT 200;

-- The owner may hand rights to mayfly_app and step down to it; the broker's login is only ever mayfly_app.
GRANT mayfly_app TO mayfly_owner;
GRANT mayfly_app TO mayfly_broker;

-- Nobody else is let in: whoever may connect can hold the lock that brokers take at their start.
DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO mayfly_owner;
GRANT USAGE ON SCHEMA public TO mayfly_app;
-- The migrations keep their own list in a schema beside the tables.
DO $$ BEGIN EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO mayfly_owner', current_database()); END $$;
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO mayfly_broker', current_database()); END $$;
