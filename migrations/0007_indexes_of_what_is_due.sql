DROP INDEX "leases_expiring";--> statement-breakpoint
DROP INDEX "tasks_due";--> statement-breakpoint
CREATE INDEX "leases_expiring" ON "leases" USING btree ("expires_at") WHERE ended_at is null;--> statement-breakpoint
CREATE INDEX "tasks_due" ON "tasks" USING btree ("deadline") WHERE closing_at is null and ended_at is null;