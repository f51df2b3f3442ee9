CREATE TABLE "stored_bytes" (
	"scope" text NOT NULL,
	"kind" text NOT NULL,
	"hour" timestamp with time zone NOT NULL,
	"bytes" bigint NOT NULL,
	CONSTRAINT "stored_bytes_scope_kind_hour_pk" PRIMARY KEY("scope","kind","hour"),
	CONSTRAINT "stored_bytes_kind_check" CHECK (kind in ('replies', 'turn_log'))
);
