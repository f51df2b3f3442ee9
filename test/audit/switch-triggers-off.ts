import { runAsAdmin, type TestDatabase } from "../support/test-database.ts";

/** As somebody could who has the password of the schema's owner. The service's role cannot. */
export async function switchTriggersOff(database: TestDatabase): Promise<void> {
  await runAsAdmin(
    database.adminUrl,
    ...["audit_log", "audit_log_0", "audit_heads", "audit_anchors"].map(
      (table) => `alter table ${table} disable trigger all`,
    ),
  );
}
