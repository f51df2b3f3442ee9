ALTER TABLE "engines" RENAME COLUMN "fence" TO "fencing_token";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "driver_replica" TO "lease_replica";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "restart_of" TO "process_to_replace";--> statement-breakpoint
ALTER TABLE "engines" RENAME COLUMN "boot_of" TO "process_before_boot";--> statement-breakpoint
ALTER TABLE "turns" RENAME COLUMN "fence" TO "fencing_token";--> statement-breakpoint
ALTER TABLE "engines" ADD COLUMN "endpoint" text;--> statement-breakpoint
ALTER TABLE "engines" ADD COLUMN "process_started_at" timestamp with time zone;--> statement-breakpoint
UPDATE "engines" SET
  "endpoint" = 'http://127.0.0.1:' || "host_port",
  "process_started_at" = substring("process_identity" from '@(\d{4}-.*)$')::timestamp with time zone;
