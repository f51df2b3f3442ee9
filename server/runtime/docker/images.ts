import { toErrorMessage } from "../../errors.ts";
import { abortable } from "../../time/abortable.ts";
import type { DockerContext } from "./context.ts";
import { toDockerFailure, toHttpStatus, unlessStatus } from "./failure.ts";
import { isImageName } from "./names.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readJsonLines } from "./json-lines.ts";

/** A pull without progress for this long is aborted. */
const SILENCE_MS = 120_000;
const LOG_INTERVAL_MS = 5_000;

/** The image's id. Pulls a missing image; a pull may take any time while it makes progress. */
export async function resolveDockerImage(
  ctx: DockerContext,
  image: string,
  signal?: AbortSignal,
): Promise<string> {
  if (!isImageName(image)) throw toMissing(`"${image}" cannot be the name of an image`);
  const present = await findDockerImage(ctx, image);
  if (present !== undefined) return present;
  if (/^(sha256:)?[0-9a-f]{64}$/.test(image))
    throw toMissing(`the daemon lacks the image ${image}, and an id cannot be pulled: use a tag or a digest`);
  await pullImage(ctx, image, signal);
  const pulled = await findDockerImage(ctx, image);
  if (pulled === undefined) throw toMissing(`the daemon lacks ${image} after its pull`);
  return pulled;
}

function toMissing(message: string): RuntimeFailure {
  return new RuntimeFailure("image_missing", message);
}

/** undefined: the daemon lacks the image, or no image can have this name. */
export async function findDockerImage({ client }: DockerContext, image: string): Promise<string | undefined> {
  if (!isImageName(image)) return undefined;
  const found = await client.call((docker) => docker.getImage(image).inspect().catch(unlessStatus(400, 404)));
  return found?.Id;
}

/** All callers share one pull of an image. Aborting the signal ends this caller's wait, not the pull. */
async function pullImage(ctx: DockerContext, image: string, signal?: AbortSignal): Promise<void> {
  const pull = ctx.pulls.get(image) ?? startPull(ctx, image);
  try {
    await (signal === undefined ? pull : abortable(pull, signal));
  } catch (error) {
    if (!signal?.aborted) throw error;
    throw new RuntimeFailure("unreachable", `the wait for the pull of ${image} was aborted`);
  }
}

function startPull(ctx: DockerContext, image: string): Promise<void> {
  const pull = runPull(ctx, image).finally(() => ctx.pulls.delete(image));
  // All callers may have stopped waiting, and then a failure would be an unhandled rejection.
  pull.catch(() => undefined);
  ctx.pulls.set(image, pull);
  return pull;
}

async function runPull(ctx: DockerContext, image: string): Promise<void> {
  const limit = new AbortController();
  const abort = () => limit.abort();
  const silence = setTimeout(abort, SILENCE_MS);
  ctx.client.closed.addEventListener("abort", abort, { once: true });
  try {
    if (ctx.client.closed.aborted) abort();
    ctx.log.info({ image }, "pulling the image");
    await followPull(ctx, withTag(image), { abortSignal: limit.signal, onProgress: () => silence.refresh() });
    ctx.log.info({ image }, "pulled the image");
  } catch (error) {
    if (limit.signal.aborted) {
      throw new RuntimeFailure("unreachable", `the pull of ${image} was aborted`, error);
    }
    throw toPullFailure(image, error);
  } finally {
    clearTimeout(silence);
    ctx.client.closed.removeEventListener("abort", abort);
  }
}

async function followPull(
  ctx: DockerContext,
  image: string,
  { abortSignal, onProgress }: { abortSignal: AbortSignal; onProgress: () => void },
): Promise<void> {
  const stream = await ctx.client.docker.pull(image, { abortSignal });
  let lastLogAt = Date.now();
  for await (const line of readJsonLines(stream, abortSignal)) {
    onProgress();
    // A pull that fails half-way has answered 200 before. Only these lines report the failure.
    if (typeof line["error"] === "string") throw toMissing(line["error"]);
    if (Date.now() - lastLogAt < LOG_INTERVAL_MS) continue;
    lastLogAt = Date.now();
    ctx.log.info({ image, layer: line["id"], status: line["status"], progress: line["progress"] }, "pulling");
  }
  abortSignal.throwIfAborted();
}

/** Any failure that the daemon reports means `image_missing`, whatever the registry's reason. */
function toPullFailure(image: string, error: unknown): RuntimeFailure {
  const isAnswer = toHttpStatus(error) !== undefined || error instanceof RuntimeFailure;
  const failure = toDockerFailure(error);
  if (!isAnswer || failure.kind === "unreachable") return failure;
  return toMissing(`cannot pull ${image}: ${toErrorMessage(failure)}`);
}

/** For a name without a tag, the daemon would pull all tags. */
function withTag(image: string): string {
  const hasTag = image.includes("@") || image.lastIndexOf(":") > image.lastIndexOf("/");
  return hasTag ? image : `${image}:latest`;
}
