CREATE TABLE "master_keys" (
	"key_id" text PRIMARY KEY NOT NULL,
	"check_value" text NOT NULL,
	"created_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "engines" ADD COLUMN "mac" text;--> statement-breakpoint
ALTER TABLE "engines" ADD COLUMN "endpoint_mac" text;--> statement-breakpoint
ALTER TABLE "operators" ADD COLUMN "mac" text;--> statement-breakpoint
ALTER TABLE "platform_keys" ADD COLUMN "mac" text;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "mac" text;--> statement-breakpoint
CREATE UNIQUE INDEX "operators_name_key" ON "operators" USING btree (lower("name")) WHERE revoked_at is null;