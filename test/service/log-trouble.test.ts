import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { callOften, MAIN, readinessOf, startShell } from "./shell-service.ts";

test("with a full disk behind its log the service serves, says that the log is degraded, and drains after SIGTERM", async () => {
  await using service = await startShell("SERVICE > /dev/full 2>&1");
  await callOften(service.url, 100);
  await expect
    .poll(() => readinessOf(service.url))
    .toMatchObject({ ok: true, subsystems: { log: "degraded", database: "ok" } });
  const exited = once(service.child, "exit");
  service.child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});

test("a failed start says why on standard error if its log cannot be written", async () => {
  await using home = await openTempDir();
  const child = spawn("sh", ["-c", `exec "${process.execPath}" "${MAIN}" > /dev/full`], {
    env: {
      PATH: process.env["PATH"],
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: "postgres://u:p@127.0.0.1:9/none",
    },
  });
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const [code] = (await once(child, "close")) as [number];
  expect(code).toBe(1);
  expect(text).toContain("start failed: ");
  expect(text).toContain("the database of ORCH_DATABASE_URL is not available");
});
