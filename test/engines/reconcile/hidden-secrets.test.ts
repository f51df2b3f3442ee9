import { expect, test } from "vitest";
import { findEngine } from "../../../db/engines.ts";
import { listAudit } from "../../../server/audit/list-audit.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { openHouse, openSite, toCall } from "../open-house.ts";

const PRIVATE_KEY =
  "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nw0BAQEFAASC\n-----END PRIVATE KEY-----\n";
const VALUES = {
  QUOTED: 'pa"ss\\word',
  SHORT: "abc",
  SERVICE_ACCOUNT: JSON.stringify({ type: "service_account", private_key: PRIVATE_KEY }),
};

/** How engines log their environment. */
const LINES = [
  `starting with ${VALUES.QUOTED}`,
  JSON.stringify({ level: "debug", env: VALUES }),
  JSON.stringify({ msg: JSON.stringify(VALUES) }),
  `key: ${VALUES.SHORT}`,
  `dsn=https://x/?a=${encodeURIComponent(VALUES.QUOTED)}&b=${Buffer.from(VALUES.QUOTED).toString("base64")}`,
  ...PRIVATE_KEY.split("\n").map((line) => `[pem] ${line}`),
  "cannot read the abcdef catalog",
];

test("no encoding of a passed-through value reaches the caller, the row or the audit log of a failed boot", async () => {
  await using site = await openSite({ config: { healthTimeoutMs: 60_000, passthrough: VALUES } });
  await using house = await openHouse(site);
  house.runtime.onCall = async ({ call, when, input }) => {
    if (call !== "start" || when !== "after") return;
    const container = site.daemon.containers.get(String(input));
    if (container === undefined) return;
    for (const line of LINES) site.daemon.write(container, "stderr", line);
    await site.daemon.end(container, 78);
  };
  const failed = await provisionEngine(house.ctx, toCall(house, "ada")).catch((error: unknown) => error);
  const row = await findEngine(house.ctx.db, { productId: house.productId, userId: "ada" });
  const { items } = await listAudit(house.ctx, { scope: house.productId, limit: 100 });
  expect(failed).toMatchObject({ reason: "BOOT_FAILED" });
  expect(row?.statusReason).toContain("cannot read the abcdef catalog");
  for (const words of [String(failed), row?.statusReason ?? "", JSON.stringify(items)]) {
    expect(words).not.toMatch(/pa\W*ss|\babc\b|MIIE|w0BAQ|PRIVATE|cGEic3/);
  }
});
