import { execFile } from "node:child_process";
import { chown, lchown, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** How Postgres programs are started here: the words before the program, and who owns the files they use. */
export interface Launcher {
  readonly prefix: readonly string[];
  /** Undefined: our own user, and ownership is left alone. */
  readonly ownerUid: number | undefined;
}

/** Nothing of our own environment reaches Postgres: no PG* variable, no secret, no locale. */
export const postgresEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
  TZ: "UTC",
};

const rootUid = 0;
const nobodyUid = 65534;

/*
 * Postgres refuses to run as uid 0. As root, the first way that works here is taken:
 *   1. a user namespace in which we are uid 1000: outside it every file stays root's, and a repository
 *      under a 0700 home is reachable;
 *   2. the uid of nobody, with the one capability to pass what is closed to it. This is for containers,
 *      whose default profile forbids user namespaces.
 * Neither adds a user to the system or a file outside the data directory.
 */
export const rootLaunchers: readonly Launcher[] = [
  { prefix: ["unshare", "--user", "--map-user=1000", "--"], ownerUid: rootUid },
  {
    prefix: [
      "setpriv",
      // Without this access(2), by which Postgres looks for its own program, ignores the capability.
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

/** @throws when none of the ways works: as root there may be none. */
export async function getLauncher(
  postgres: string,
  candidates = process.getuid?.() === rootUid ? rootLaunchers : [ownUser],
): Promise<Launcher> {
  const failures: string[] = [];
  for (const launcher of candidates) {
    const failure = await tryLauncher(launcher, postgres);
    if (failure === undefined) return launcher;
    failures.push(`${launcher.prefix[0] ?? "as it is"}: ${failure}`);
  }
  throw new Error(
    `the embedded Postgres does not run here (${failures.join("; ")}): ` +
      "start as another user, or point ORCH_DATABASE_URL at a Postgres of your own",
  );
}

export function toCommand(launcher: Launcher, program: string, args: readonly string[]): [string, string[]] {
  const [command = program, ...rest] = [...launcher.prefix, program, ...args];
  return [command, rest];
}

/** Undefined when Postgres runs this way: far enough to miss a directory that is not there. */
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

/** Gives the tree to the user that Postgres will run as; nothing happens when it is that user's already. */
export async function giveTree(launcher: Launcher, path: string): Promise<void> {
  const uid = launcher.ownerUid;
  if (uid === undefined || (await stat(path)).uid === uid) return;
  for (const entry of await readdir(path, { recursive: true })) await lchown(join(path, entry), uid, uid);
  // The top comes last: an interrupted walk is begun again by the next start.
  await chown(path, uid, uid);
}
