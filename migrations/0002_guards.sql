-- History is append-only, for the owner of the tables too: a trigger refuses what a grant would let the owner do.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
--> statement-breakpoint
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
CREATE TRIGGER decisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
CREATE TRIGGER policy_sets_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policy_sets FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
-- What the broker runs as. It cannot log in: a login role is put into it (deploy/postgres/roles.sql), or the owner's connections step down to it.
-- Roles belong to the cluster, so another database of it may have made this one already, or be making it at this moment.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mayfly_app') THEN
    CREATE ROLE mayfly_app NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END
$$;
--> statement-breakpoint
GRANT USAGE ON SCHEMA public TO mayfly_app;
--> statement-breakpoint
GRANT SELECT, INSERT ON entries, decisions, policy_sets TO mayfly_app;
--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE ON tasks, leases, agents TO mayfly_app;
--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys, spent_tokens TO mayfly_app;
--> statement-breakpoint
GRANT USAGE ON SEQUENCE entry_order TO mayfly_app;
--> statement-breakpoint
-- A broker without the owner's rights reads here that no migration is pending.
GRANT USAGE ON SCHEMA mayfly_schema TO mayfly_app;
--> statement-breakpoint
GRANT SELECT ON ALL TABLES IN SCHEMA mayfly_schema TO mayfly_app;
--> statement-breakpoint
-- So that a connection of the owner may step down to the application's role, and a managed Postgres without superusers can too.
DO $$
BEGIN
  IF NOT pg_has_role(current_user, 'mayfly_app', 'member') THEN
    EXECUTE format('GRANT mayfly_app TO %I', current_user);
  END IF;
END
$$;
