import { afterAll, beforeAll, expect, test } from "vitest";
import { findEngine } from "../../../db/engines.ts";
import { setProductPolicy } from "../../../db/products.ts";
import { measureVolumes } from "../../../server/engines/access/measure-volumes.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;
beforeAll(async () => {
  site = await openSite();
  house = await openHouse(site);
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const MEBIBYTE = 1024 * 1024;

test("the present policy limits the volume of an engine, and without a limit nothing is measured", async () => {
  await provisionEngine(house.ctx, toCall(house, "ann"));
  const engine = await findEngine(house.ctx.db, { productId: house.productId, userId: "ann" });
  const { id = "", volumeName = "" } = engine ?? {};
  const volume = site.daemon.volumes.get(volumeName);
  if (volume === undefined) throw new Error("the engine has no volume");
  volume.bytes = 64 * MEBIBYTE + 1;
  const measured = () => house.runtime.calls.filter(({ call }) => call === "measureVolumes").length;
  const measure = async (policy: object, config = house.ctx.config) => {
    await setProductPolicy(house.ctx.db, { id: house.productId, policy, mac: null });
    await measureVolumes({ ...house.ctx, config });
    try {
      house.ctx.fullVolumes.requireRoom(id);
      return "room";
    } catch (error) {
      return error instanceof Error ? error.message : "no error";
    }
  };

  expect(await measure({})).toBe("room");
  expect(measured()).toBe(0);
  expect(await measure({ resources: { volumeMb: 65 } })).toBe("room");
  expect(await measure({ resources: { volumeMb: 64 } })).toContain("holds 65 MiB and may hold 64");
  const small = { ...house.ctx.config, engineVolumeMb: 10 };
  expect(await measure({}, small)).toContain("may hold 10");
  expect(await measure({ resources: { volumeMb: 100 } }, small)).toBe("room");
  volume.bytes = MEBIBYTE;
  expect(await measure({ resources: { volumeMb: 2 } })).toBe("room");
});
