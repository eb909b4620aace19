CREATE TABLE "kill_lists" (
	"provider" text NOT NULL,
	"role" text NOT NULL,
	"cohort" integer NOT NULL,
	"cohort_since" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"generation" integer DEFAULT 0 NOT NULL,
	"digest" text,
	"intended_at" timestamp (3) with time zone,
	"written_generation" integer DEFAULT 0 NOT NULL,
	"written_at" timestamp (3) with time zone,
	"confirmed_generation" integer DEFAULT 0 NOT NULL,
	"confirmed_at" timestamp (3) with time zone,
	"killed" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"cutoff" timestamp (3) with time zone,
	"rung" integer DEFAULT 1 NOT NULL,
	"held_by" text,
	"held_until" timestamp (3) with time zone,
	"check_at" timestamp (3) with time zone,
	"disturbed_at" timestamp (3) with time zone,
	CONSTRAINT "kill_lists_provider_role_pk" PRIMARY KEY("provider","role"),
	CONSTRAINT "kill_lists_cohort" CHECK (cohort >= 0 and cohort < 46656),
	CONSTRAINT "kill_lists_generations" CHECK (written_generation <= generation and confirmed_generation <= generation)
);
--> statement-breakpoint
CREATE TABLE "role_sessions" (
	"provider" text NOT NULL,
	"role" text NOT NULL,
	"name" text NOT NULL,
	"lease_id" text NOT NULL,
	"reserved_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"forget_at" timestamp (3) with time zone NOT NULL,
	"denied_at" timestamp (3) with time zone,
	"generation" integer,
	"written_at" timestamp (3) with time zone,
	"confirmed_at" timestamp (3) with time zone,
	CONSTRAINT "role_sessions_provider_role_name_pk" PRIMARY KEY("provider","role","name"),
	CONSTRAINT "role_sessions_denied" CHECK (denied_at is not null or (generation is null and confirmed_at is null)),
	CONSTRAINT "role_sessions_confirmed" CHECK (generation is not null or (written_at is null and confirmed_at is null))
);
--> statement-breakpoint
CREATE INDEX "role_sessions_by_lease" ON "role_sessions" USING btree ("lease_id");--> statement-breakpoint
CREATE INDEX "role_sessions_forgotten" ON "role_sessions" USING btree ("forget_at");--> statement-breakpoint
CREATE INDEX "role_sessions_denied" ON "role_sessions" USING btree ("provider","role") WHERE denied_at is not null;--> statement-breakpoint
CREATE INDEX "role_sessions_unconfirmed" ON "role_sessions" USING btree ("provider","role") WHERE denied_at is not null and confirmed_at is null;--> statement-breakpoint
-- Names are forgotten when AWS cannot take their sessions any more. A kill list stays: what AWS has of it is known from here alone.
GRANT SELECT, INSERT, UPDATE, DELETE ON role_sessions TO mayfly_app;
--> statement-breakpoint
GRANT SELECT, INSERT, UPDATE ON kill_lists TO mayfly_app;
