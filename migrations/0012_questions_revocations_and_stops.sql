CREATE TABLE "revocations" (
	"id" text PRIMARY KEY NOT NULL,
	"agent" text,
	"owner" text,
	"issuer" text,
	"kind" text,
	"grant_name" text,
	"provider" text,
	"reason" text NOT NULL,
	"by" text NOT NULL,
	"started_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"xid" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"begun_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "stops" (
	"id" text PRIMARY KEY NOT NULL,
	"agent" text,
	"owner" text,
	"issuer" text,
	"kind" text,
	"grant_name" text,
	"provider" text,
	"reason" text NOT NULL,
	"by" text NOT NULL,
	"began_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"until" timestamp (3) with time zone NOT NULL,
	"lifted_at" timestamp (3) with time zone,
	"lifted_by" text,
	"lift_reason" text
);
--> statement-breakpoint
ALTER TABLE "leases" ADD COLUMN "owner" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "leases" ADD COLUMN "revoked_in" text;--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "revoked_in" text;--> statement-breakpoint
-- Before its indexes: each row is written again, once.
UPDATE "leases" AS lease SET "owner" = task."owner" FROM "tasks" AS task WHERE task."id" = lease."task_id";--> statement-breakpoint
CREATE INDEX "revocations_unfinished" ON "revocations" USING btree ("id") WHERE ended_at is null;--> statement-breakpoint
CREATE INDEX "stops_standing" ON "stops" USING btree ("until") WHERE lifted_at is null;--> statement-breakpoint
CREATE INDEX "decisions_denied" ON "decisions" USING btree ("id") WHERE outcome = 'deny';--> statement-breakpoint
CREATE INDEX "decisions_denied_by_agent" ON "decisions" USING btree ("agent","id") WHERE outcome = 'deny';--> statement-breakpoint
CREATE INDEX "decisions_denied_by_policy" ON "decisions" USING gin (policies jsonb_path_ops) WHERE outcome = 'deny';--> statement-breakpoint
CREATE INDEX "entries_by_operator" ON "entries" USING btree ("left"(body->>'by', 256),"id") WHERE body->>'by' like 'operator:%';--> statement-breakpoint
CREATE INDEX "leases_by_owner" ON "leases" USING btree ("owner","id");--> statement-breakpoint
CREATE INDEX "leases_by_revocation" ON "leases" USING btree ("revoked_in","state") WHERE revoked_in is not null;--> statement-breakpoint
CREATE INDEX "leases_of_long_life" ON "leases" USING gist (tstzrange(reserved_at, ended_at)) WHERE ended_at - reserved_at > interval '15 minutes';--> statement-breakpoint
CREATE INDEX "leases_ended_late" ON "leases" USING btree ("id",(ended_at - closing_at)) WHERE ended_at - closing_at > interval '1 second';--> statement-breakpoint
CREATE INDEX "tasks_not_completed" ON "tasks" USING btree ("id") WHERE outcome in ('failed', 'revoked', 'expired');--> statement-breakpoint
CREATE INDEX "tasks_not_completed_by_agent" ON "tasks" USING btree ("agent","id") WHERE outcome in ('failed', 'revoked', 'expired');--> statement-breakpoint
CREATE INDEX "tasks_not_completed_by_owner" ON "tasks" USING btree ("owner","id") WHERE outcome in ('failed', 'revoked', 'expired');--> statement-breakpoint
CREATE INDEX "tasks_by_revocation" ON "tasks" USING btree ("revoked_in","state") WHERE revoked_in is not null;--> statement-breakpoint
CREATE INDEX "tasks_of_long_life" ON "tasks" USING gist (tstzrange(opened_at, ended_at)) WHERE ended_at - opened_at > interval '15 minutes';--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE ON revocations, stops TO mayfly_app;
--> statement-breakpoint
-- A stop holds for whatever is issued after its commit, without a check behind the commit of what is issued. Everything that issues reads `stops` with
-- FOR KEY SHARE, which takes ROW SHARE on the table before the statement's snapshot; EXCLUSIVE waits for all of those to commit, and those that come
-- wait for it and then see it. Plain reading (a backup's too) goes on: it takes ACCESS SHARE. Two stops at once may find themselves in a deadlock;
-- Postgres ends one of them, and the broker asks again.
CREATE FUNCTION shut_the_door() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  LOCK TABLE stops IN EXCLUSIVE MODE;
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER stops_shut_the_door BEFORE INSERT ON stops FOR EACH STATEMENT EXECUTE FUNCTION shut_the_door();
