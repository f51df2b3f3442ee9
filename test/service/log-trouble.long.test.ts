import { expect, test } from "vitest";
import { callOften, readinessOf, startShell } from "./shell-service.ts";

test.each([
  ["a reader that left", "SERVICE 2>&1 | head -c 10"],
  ["a reader that reads nothing", "SERVICE 2>&1 | sleep 100000"],
])(
  "with %s behind its log the service starts, serves and says that the log is degraded",
  async (_name, shell) => {
    await using service = await startShell(shell);
    // More than a pipe holds.
    await callOften(service.url, 1_000);
    await expect
      .poll(() => readinessOf(service.url))
      .toMatchObject({ ok: true, subsystems: { log: "degraded", database: "ok" } });
  },
);

test("a reader that stops for a while gets all lines afterwards", async () => {
  await using service = await startShell("SERVICE");
  const before = await readinessOf(service.url);
  expect(before?.subsystems?.["log"]).toBe("ok");
  await callOften(service.url, 2_000);
  await expect.poll(async () => (await readinessOf(service.url))?.subsystems?.["log"]).toBe("degraded");
  let text = "";
  service.child.stdout?.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await expect.poll(async () => (await readinessOf(service.url))?.subsystems?.["log"]).toBe("ok");
  await expect.poll(() => text.match(/"path":"\/trpc\/products.list/g)?.length).toBe(2_000);
});
