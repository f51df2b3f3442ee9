CREATE TABLE "rate_windows" (
	"product_id" uuid NOT NULL,
	"kind" text NOT NULL,
	"started_at" timestamp with time zone NOT NULL,
	"limit" integer NOT NULL,
	"used" integer NOT NULL,
	"taken" integer NOT NULL,
	CONSTRAINT "rate_windows_product_id_kind_pk" PRIMARY KEY("product_id","kind")
);
--> statement-breakpoint
CREATE INDEX "engines_product_idx" ON "engines" USING btree ("product_id","id");--> statement-breakpoint
-- One row is updated all the time. With room on its page, a new version of the row needs no change of the index.
ALTER TABLE "rate_windows" SET (fillfactor = 20);
