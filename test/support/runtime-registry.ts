import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";

export interface TestRegistry extends AsyncDisposable {
  /** The name of an image that can be pulled. */
  readonly image: string;
  /** A pull of this image fails half-way, because its layer does not match the manifest. */
  readonly brokenImage: string;
}

/** A registry of two nearly empty images. The machine of the tests may reach no other registry. */
export async function openTestRegistry(): Promise<TestRegistry> {
  const blobs = new Map<string, Buffer>();
  const put = (blob: Buffer, digest = toDigest(blob)) => {
    blobs.set(digest, blob);
    return { size: blob.length, digest };
  };
  const layerTar = await packOneFile();
  const makeManifest = (label: string, layerDigest?: string) => {
    const layer = gzipSync(Buffer.concat([layerTar, Buffer.alloc(512)]));
    const config = {
      architecture: "amd64",
      os: "linux",
      config: { Labels: { label } },
      rootfs: { type: "layers", diff_ids: [toDigest(Buffer.concat([layerTar, Buffer.alloc(512)]))] },
      history: [{ created: "2026-01-01T00:00:00Z", created_by: "test" }],
    };
    return Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: "application/vnd.docker.distribution.manifest.v2+json",
        config: {
          mediaType: "application/vnd.docker.container.image.v1+json",
          ...put(Buffer.from(JSON.stringify(config))),
        },
        layers: [
          { mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", ...put(layer, layerDigest) },
        ],
      }),
    );
  };
  const unique = `${process.pid}-${Date.now()}`;
  const manifests = new Map([
    ["good", makeManifest(unique)],
    ["broken", makeManifest(`broken-${unique}`, `sha256:${"b".repeat(64)}`)],
  ]);
  const server = createServer((request, response) => {
    const [, , name = "", kind, reference = ""] = (request.url ?? "").split("/");
    const body = kind === "manifests" ? manifests.get(name) : blobs.get(reference);
    if (kind === undefined) return response.end("{}");
    if (body === undefined) return response.writeHead(404).end("{}");
    response.writeHead(200, {
      "content-type":
        kind === "manifests"
          ? "application/vnd.docker.distribution.manifest.v2+json"
          : "application/octet-stream",
      "content-length": body.length,
      "docker-content-digest": toDigest(body),
    });
    return response.end(request.method === "HEAD" ? undefined : body);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    image: `127.0.0.1:${port}/good:1`,
    brokenImage: `127.0.0.1:${port}/broken:1`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

async function packOneFile(): Promise<Buffer> {
  const layer = pack();
  layer.entry({ name: "hello", mtime: new Date(0) }, "hello");
  layer.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of layer) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function toDigest(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
