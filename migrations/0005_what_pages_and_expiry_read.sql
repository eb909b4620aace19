DROP INDEX "entries_by_lease";--> statement-breakpoint
CREATE INDEX "leases_expiring" ON "leases" USING btree ("expires_at") WHERE state in ('active', 'revoking', 'lapsing');--> statement-breakpoint
CREATE INDEX "leases_by_provider" ON "leases" USING btree ("provider","id");--> statement-breakpoint
CREATE INDEX "leases_by_state" ON "leases" USING btree ("state","id") WHERE state in ('revoked', 'expired', 'failed');--> statement-breakpoint
CREATE INDEX "tasks_by_kind" ON "tasks" USING btree ("kind","id");--> statement-breakpoint
CREATE INDEX "tasks_by_owner" ON "tasks" USING btree ("owner","id");--> statement-breakpoint
CREATE INDEX "entries_by_lease" ON "entries" USING btree ("lease_id","id") WHERE lease_id is not null;