CREATE TABLE "checkpoints" (
	"size" bigint PRIMARY KEY NOT NULL,
	"previous" bigint NOT NULL,
	"root" "bytea" NOT NULL,
	"note" text NOT NULL,
	"at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "checkpoints_previous_unique" UNIQUE("previous"),
	CONSTRAINT "checkpoints_grow" CHECK (previous >= 0 and size > previous)
);
--> statement-breakpoint
CREATE TABLE "leaves" (
	"index" bigint PRIMARY KEY NOT NULL,
	"entry_id" text NOT NULL,
	"hash" "bytea" NOT NULL,
	CONSTRAINT "leaves_entry_id_unique" UNIQUE("entry_id")
);
--> statement-breakpoint
CREATE TABLE "subtrees" (
	"level" integer NOT NULL,
	"index" bigint NOT NULL,
	"hash" "bytea" NOT NULL,
	CONSTRAINT "subtrees_level_index_pk" PRIMARY KEY("level","index"),
	CONSTRAINT "subtrees_level" CHECK (level >= 1)
);
--> statement-breakpoint
CREATE INDEX "entries_by_xid" ON "entries" USING btree ("xid","id");--> statement-breakpoint
-- As the history itself: what has its place in the log keeps it, and what was signed stays signed, for the owner of the tables too.
CREATE TRIGGER leaves_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON leaves FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
CREATE TRIGGER subtrees_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON subtrees FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
CREATE TRIGGER checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
--> statement-breakpoint
GRANT SELECT, INSERT ON leaves, subtrees, checkpoints TO mayfly_app;
