ALTER TABLE "engines" RENAME COLUMN "fence" TO "fencing_token";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "driver_replica" TO "lease_replica";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "restart_of" TO "process_to_replace";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "boot_of" TO "process_before_boot";--> statement-breakpoint
ALTER TABLE "turns" RENAME COLUMN "fence" TO "fencing_token";
