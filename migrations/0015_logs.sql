CREATE TABLE "logs" (
	"number" integer PRIMARY KEY NOT NULL,
	"origin" text NOT NULL,
	"key" text NOT NULL,
	"first" bigint NOT NULL,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "logs_origin_unique" UNIQUE("origin"),
	CONSTRAINT "logs_first_unique" UNIQUE("first"),
	CONSTRAINT "logs_first" CHECK (number >= 1 and (number = 1) = (first = 0))
);
--> statement-breakpoint
ALTER TABLE "subtrees" ADD COLUMN "log" integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "subtrees" DROP CONSTRAINT "subtrees_level_index_pk";--> statement-breakpoint
ALTER TABLE "subtrees" ADD CONSTRAINT "subtrees_log_level_index_pk" PRIMARY KEY("log","level","index");
--> statement-breakpoint
-- A log that has begun already gets its row with its next entry: what its verifier key is, this database does not know.
CREATE TRIGGER logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logs FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
GRANT SELECT, INSERT ON logs TO mayfly_app;
