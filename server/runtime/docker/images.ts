import { toErrorMessage } from "../../errors.ts";
import type { DockerContext } from "./context.ts";
import { toDockerFailure, toHttpStatus, unlessStatus } from "./failure.ts";
import { isImageName } from "./names.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readJsonLines } from "./json-lines.ts";

/** A pull that shows no progress for so long is given up. */
const SILENCE_MS = 120_000;
const PROGRESS_EVERY_MS = 5_000;

/** The image's id. Pulls it when it is not here, which takes as long as it takes while it moves on. */
export async function resolveDockerImage(
  ctx: DockerContext,
  image: string,
  signal?: AbortSignal,
): Promise<string> {
  if (!isImageName(image))
    throw new RuntimeFailure("image_missing", `${image} cannot be the name of an image`);
  const present = await findDockerImage(ctx, image);
  if (present !== undefined) return present;
  if (/^(sha256:)?[0-9a-f]{64}$/.test(image)) {
    throw new RuntimeFailure("image_missing", `the image ${image} is not here, and an id cannot be pulled`);
  }
  await pullImage(ctx, image, signal);
  const pulled = await findDockerImage(ctx, image);
  if (pulled === undefined) throw new RuntimeFailure("image_missing", `${image} was pulled and is not here`);
  return pulled;
}

/** undefined: it is not here, or nothing could be called so. */
export async function findDockerImage({ client }: DockerContext, image: string): Promise<string | undefined> {
  if (!isImageName(image)) return undefined;
  const found = await client.call((docker) => docker.getImage(image).inspect().catch(unlessStatus(400, 404)));
  return found?.Id;
}

/** One pull for all who wait. Who stops waiting leaves it to the others, and to the next who asks. */
async function pullImage(ctx: DockerContext, image: string, signal?: AbortSignal): Promise<void> {
  const pull = ctx.pulls.get(image) ?? startPull(ctx, image);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () =>
    reject(new RuntimeFailure("unreachable", `nobody waits for the pull of ${image} any more`));
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([pull, aborted]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function startPull(ctx: DockerContext, image: string): Promise<void> {
  const pull = runPull(ctx, image).finally(() => ctx.pulls.delete(image));
  // Nobody may be left to hear of it.
  pull.catch(() => undefined);
  ctx.pulls.set(image, pull);
  return pull;
}

async function runPull(ctx: DockerContext, image: string): Promise<void> {
  const cut = new AbortController();
  const giveUp = () => cut.abort();
  const silence = setTimeout(giveUp, SILENCE_MS);
  ctx.client.closed.addEventListener("abort", giveUp, { once: true });
  try {
    if (ctx.client.closed.aborted) giveUp();
    ctx.log.info({ image }, "pulling the image");
    await followPull(ctx, withTag(image), { abortSignal: cut.signal, onProgress: () => silence.refresh() });
    ctx.log.info({ image }, "pulled the image");
  } catch (error) {
    if (cut.signal.aborted) {
      throw new RuntimeFailure("unreachable", `the pull of ${image} was cut short`, error);
    }
    throw toPullFailure(image, error);
  } finally {
    clearTimeout(silence);
    ctx.client.closed.removeEventListener("abort", giveUp);
  }
}

interface PullWatch {
  abortSignal: AbortSignal;
  onProgress: () => void;
}

async function followPull(ctx: DockerContext, image: string, watch: PullWatch): Promise<void> {
  const { docker } = ctx.client;
  const stream = await docker.pull(image, { abortSignal: watch.abortSignal });
  const stopReading = () => "destroy" in stream && typeof stream.destroy === "function" && stream.destroy();
  watch.abortSignal.addEventListener("abort", stopReading, { once: true });
  let lastLogAt = Date.now();
  for await (const line of readJsonLines(stream)) {
    watch.onProgress();
    // A pull that fails half-way has answered 200 long before: only these lines tell.
    if (typeof line["error"] === "string") throw new RuntimeFailure("image_missing", line["error"]);
    if (Date.now() - lastLogAt < PROGRESS_EVERY_MS) continue;
    lastLogAt = Date.now();
    ctx.log.info({ image, layer: line["id"], status: line["status"], progress: line["progress"] }, "pulling");
  }
  watch.abortSignal.throwIfAborted();
}

/** Whatever the registry's reason, an answer from the daemon means that the image cannot be had. */
function toPullFailure(image: string, error: unknown): RuntimeFailure {
  const isAnswer = toHttpStatus(error) !== undefined || error instanceof RuntimeFailure;
  const failure = toDockerFailure(error);
  if (!isAnswer || failure.kind === "unreachable") return failure;
  return new RuntimeFailure("image_missing", `cannot pull ${image}: ${toErrorMessage(failure)}`);
}

/** Asked for a name without tag, the daemon would pull every tag there is. */
function withTag(image: string): string {
  const hasTag = image.includes("@") || image.lastIndexOf(":") > image.lastIndexOf("/");
  return hasTag ? image : `${image}:latest`;
}
