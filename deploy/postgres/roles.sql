-- Two logins of one database: the owner changes the schema (`mayfly migrate`), the application runs the broker and cannot change history.
-- Run as a superuser, connected to the new database, before the first `mayfly migrate`:
--   createdb mayfly && psql -d mayfly -v owner_password=… -v app_password=… -f deploy/postgres/roles.sql
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

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO mayfly_owner;
GRANT USAGE ON SCHEMA public TO mayfly_app;
-- The migrations keep their own list in a schema beside the tables.
DO $$ BEGIN EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO mayfly_owner', current_database()); END $$;
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO mayfly_broker', current_database()); END $$;
