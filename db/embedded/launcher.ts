import { execFile } from "node:child_process";
import { chown, lchown, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** How to start Postgres programs: the words before the program, and the owner of their files. */
export interface Launcher {
  readonly prefix: readonly string[];
  /** undefined: Postgres runs as our own user, and ownership does not change. */
  readonly ownerUid: number | undefined;
}

/** The whole environment of Postgres: it inherits no PG* variable, no secret and no locale. */
export const postgresEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
  TZ: "UTC",
};

const rootUid = 0;
const nobodyUid = 65534;

/*
 * Postgres refuses to run as uid 0. As root, we use the first of these that works:
 *   1. A user namespace in which we are uid 1000. Files still belong to root, so Postgres can read a repository in a
 *      home directory with mode 0700.
 *   2. The uid of nobody, with the capability to ignore file permissions. Containers need this, because their default
 *      profile forbids user namespaces.
 * Neither adds a user to the system or a file outside the data directory.
 */
export const rootLaunchers: readonly Launcher[] = [
  { prefix: ["unshare", "--user", "--map-user=1000", "--"], ownerUid: rootUid },
  {
    prefix: [
      "setpriv",
      // Postgres finds its own program with access(2), which would otherwise ignore the capability.
      "--securebits=+no_setuid_fixup",
      `--reuid=${nobodyUid}`,
      `--regid=${nobodyUid}`,
      "--clear-groups",
      "--inh-caps=+dac_override",
      "--ambient-caps=+dac_override",
      "--bounding-set=-all,+dac_override",
      "--",
    ],
    ownerUid: nobodyUid,
  },
];

const ownUser: Launcher = { prefix: [], ownerUid: undefined };

/** @throws if no candidate works here. As root that may happen. */
export async function getLauncher(
  postgres: string,
  candidates = process.getuid?.() === rootUid ? rootLaunchers : [ownUser],
): Promise<Launcher> {
  const failures: string[] = [];
  for (const launcher of candidates) {
    const failure = await tryLauncher(launcher, postgres);
    if (failure === undefined) return launcher;
    failures.push(`${launcher.prefix[0] ?? "as this user"}: ${failure}`);
  }
  throw new Error(
    `the embedded Postgres cannot run here (${failures.join("; ")}): ` +
      "start as another user, or point ORCH_DATABASE_URL at a Postgres of your own",
  );
}

export function toCommand(launcher: Launcher, program: string, args: readonly string[]): [string, string[]] {
  const [command = program, ...rest] = [...launcher.prefix, program, ...args];
  return [command, rest];
}

/** undefined: Postgres runs with this launcher, because it gets as far as missing its data directory. */
async function tryLauncher(launcher: Launcher, postgres: string): Promise<string | undefined> {
  const missing = "/enginehouse-probe";
  const [command, args] = toCommand(launcher, postgres, ["-D", missing]);
  try {
    await promisify(execFile)(command, args, { env: postgresEnvironment, cwd: "/", timeout: 10_000 });
    return "ran without a data directory";
  } catch (error) {
    const message = error instanceof Error ? error.message.trim() : String(error);
    const complaint = message.split("\n").slice(1).join(" ") || message;
    return complaint.includes(`could not access directory "${missing}"`) ? undefined : complaint;
  }
}

/** Makes the user that Postgres runs as the owner of the tree. Does nothing if the top already belongs to that user. */
export async function giveTree(launcher: Launcher, path: string): Promise<void> {
  const uid = launcher.ownerUid;
  if (uid === undefined || (await stat(path)).uid === uid) return;
  for (const entry of await readdir(path, { recursive: true })) await lchown(join(path, entry), uid, uid);
  // The top comes last, so that the next start repeats an interrupted walk.
  await chown(path, uid, uid);
}
