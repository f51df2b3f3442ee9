import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take minutes, the slowest first. Begun late, one of them would run alone at the end of its suite. */
const SLOW = [
  "test/fire/takeover.long.test.ts",
  "test/fire/flood.long.test.ts",
  "test/gateways/examples.long.test.ts",
  "test/service/kill-at-any-moment.long.test.ts",
  "test/runtime/docker/runtime.test.ts",
  "test/service/main.test.ts",
  "test/runtime/process/ghost.test.ts",
];

export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rest = await super.sort(files);
    const slow = SLOW.flatMap((name) => rest.filter(({ moduleId }) => moduleId.endsWith(`/${name}`)));
    return [...slow, ...rest.filter((file) => !slow.includes(file))];
  }
}
