CREATE TABLE "agents" (
	"name" text PRIMARY KEY NOT NULL,
	"live_leases" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "agents_live_leases" CHECK (live_leases >= 0)
);
--> statement-breakpoint
CREATE TABLE "decisions" (
	"id" text PRIMARY KEY NOT NULL,
	"task_id" text NOT NULL,
	"agent" text NOT NULL,
	"kind" text NOT NULL,
	"action" text NOT NULL,
	"outcome" text NOT NULL,
	"policies" jsonb NOT NULL,
	"policy_digest" text NOT NULL,
	"obligations" jsonb NOT NULL,
	"answers" jsonb NOT NULL,
	"decided_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "entries" (
	"id" text PRIMARY KEY DEFAULT entry_id() NOT NULL,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"xid" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"kind" text NOT NULL,
	"agent" text,
	"task_id" text,
	"lease_id" text,
	"decision_id" text,
	"body" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"key" text PRIMARY KEY NOT NULL,
	"request_digest" text NOT NULL,
	"task_id" text NOT NULL,
	"busy_until" timestamp (3) with time zone,
	"expires_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "leases" (
	"id" text PRIMARY KEY NOT NULL,
	"task_id" text NOT NULL,
	"decision_id" text NOT NULL,
	"agent" text NOT NULL,
	"grant_name" text NOT NULL,
	"provider" text NOT NULL,
	"local" boolean NOT NULL,
	"revocation" text NOT NULL,
	"standing" boolean NOT NULL,
	"state" text NOT NULL,
	"parameters" jsonb NOT NULL,
	"ttl" bigint NOT NULL,
	"handles" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"digests" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"reserved_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"issued_at" timestamp (3) with time zone,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"cause" text,
	"reason" text,
	"ended_by" text,
	"closing_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	"evidence" jsonb,
	"error" text,
	"stuck_since" timestamp (3) with time zone,
	"attempts" integer DEFAULT 0 NOT NULL,
	"due_at" timestamp (3) with time zone,
	CONSTRAINT "leases_state" CHECK (state in ('reserved', 'active', 'revoking', 'lapsing', 'revoked', 'expired', 'failed')),
	CONSTRAINT "leases_ended" CHECK ((due_at is null) = (state in ('revoked', 'expired', 'failed'))),
	CONSTRAINT "leases_evidence" CHECK (state <> 'revoked' or evidence is not null),
	CONSTRAINT "leases_expiry_never_revoked" CHECK (revocation <> 'expiry' or state <> 'revoked')
);
--> statement-breakpoint
CREATE TABLE "policy_sets" (
	"digest" text PRIMARY KEY NOT NULL,
	"document" jsonb NOT NULL,
	"activated_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "spent_tokens" (
	"key" text PRIMARY KEY NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "tasks" (
	"id" text PRIMARY KEY NOT NULL,
	"state" text NOT NULL,
	"kind" text NOT NULL,
	"agent" text NOT NULL,
	"owner" text NOT NULL,
	"actor" jsonb NOT NULL,
	"purpose" text NOT NULL,
	"labels" jsonb NOT NULL,
	"token_hash" text,
	"opened_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"deadline" timestamp (3) with time zone NOT NULL,
	"outcome" text,
	"cause" text,
	"reason" text,
	"ended_by" text,
	"closing_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	"live_leases" integer DEFAULT 0 NOT NULL,
	"announced_leases" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "tasks_token_hash_unique" UNIQUE("token_hash"),
	CONSTRAINT "tasks_state" CHECK (state in ('denied', 'open', 'closing', 'completed', 'failed', 'revoked', 'expired')),
	CONSTRAINT "tasks_live_leases" CHECK (live_leases >= 0)
);
--> statement-breakpoint
ALTER TABLE "leases" ADD CONSTRAINT "leases_task_id_tasks_id_fk" FOREIGN KEY ("task_id") REFERENCES "public"."tasks"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "decisions_by_task" ON "decisions" USING btree ("task_id");--> statement-breakpoint
CREATE INDEX "entries_by_task" ON "entries" USING btree ("task_id","id");--> statement-breakpoint
CREATE INDEX "entries_by_lease" ON "entries" USING btree ("lease_id","id");--> statement-breakpoint
CREATE INDEX "entries_by_agent" ON "entries" USING btree ("agent","id");--> statement-breakpoint
CREATE INDEX "entries_by_kind" ON "entries" USING btree ("kind","id");--> statement-breakpoint
CREATE INDEX "idempotency_keys_by_expiry" ON "idempotency_keys" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "leases_due" ON "leases" USING btree ("provider","due_at") WHERE due_at is not null;--> statement-breakpoint
CREATE INDEX "leases_by_task" ON "leases" USING btree ("task_id");--> statement-breakpoint
CREATE INDEX "leases_by_agent" ON "leases" USING btree ("agent","id");--> statement-breakpoint
CREATE INDEX "leases_by_grant" ON "leases" USING btree ("grant_name","id");--> statement-breakpoint
CREATE INDEX "leases_unfinished" ON "leases" USING btree ("closing_at") WHERE state in ('revoking', 'lapsing');--> statement-breakpoint
CREATE INDEX "spent_tokens_by_expiry" ON "spent_tokens" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "tasks_due" ON "tasks" USING btree ("deadline") WHERE state = 'open';--> statement-breakpoint
CREATE INDEX "tasks_by_agent" ON "tasks" USING btree ("agent","id");--> statement-breakpoint
CREATE INDEX "tasks_by_state" ON "tasks" USING btree ("state","id");