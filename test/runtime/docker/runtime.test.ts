import { describe } from "vitest";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { openDockerSubject } from "../../support/runtime-docker-subject.ts";
import { describeRuntimeContract } from "../runtime-contract.ts";

describe.skipIf(!isDockerAvailable())("with a Docker daemon", () => {
  describeRuntimeContract("docker", async () => {
    const subject = await openDockerSubject();
    return { ...subject, image: subject.fixture.tag, missingImage: `sha256:${"0".repeat(64)}`, isReal: true };
  });
});
