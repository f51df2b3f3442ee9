import { expect, test } from "vitest";
import { isPinnedImage } from "../../../server/engines/model/pinned-image.ts";

const digest = `sha256:${"0123456789abcdef".repeat(4)}`;

test.each([
  "engine:1.2.3",
  "engine:latest-1",
  "registry.example.com/team/engine:2.3",
  "localhost:5000/engine:2",
  `engine@${digest}`,
  `engine:latest@${digest}`,
  `localhost:5000/team/engine@${digest}`,
  digest,
  digest.slice("sha256:".length),
])("%s is pinned", (image) => {
  expect(isPinnedImage(image)).toBe(true);
});

test.each([
  "engine",
  "engine:latest",
  "registry.example.com/team/engine",
  "localhost:5000/engine",
  "localhost:5000/engine:latest",
  "engine:",
  "engine@sha256:0123",
  "engine:1@",
  "",
])("%j is not pinned", (image) => {
  expect(isPinnedImage(image)).toBe(false);
});
