/** What `ghost doctor` can tell without a daemon: why one would not start, or find nothing when it does. */
import { access, constants, readFile, stat, statfs } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import type { DoctorFinding } from "../../protocol/daemon.ts";
import type { Locations } from "../../protocol/node/locations.ts";
import { formatBytes } from "./terminal-text.ts";

/** A server on this machine answers within milliseconds; whoever takes longer is as good as absent. */
const PROBE_MS = 1000;
const DEFAULT_PORT = 4747;
const LOW_DISK_BYTES = 1024 ** 3;

export async function examineWithoutDaemon(locations: Locations): Promise<readonly DoctorFinding[]> {
  const configFile = join(locations.configDir, "ghost.toml");
  const [config, warden] = await Promise.all([
    readToml("settings", configFile),
    readToml("rules", join(locations.configDir, "warden.toml")),
  ]);
  return [
    ...userFinding(),
    config.finding,
    warden.finding,
    await dataFolder(locations.dataDir),
    await portFinding(config.port ?? DEFAULT_PORT),
    await engineFinding(),
  ];
}

function userFinding(): readonly DoctorFinding[] {
  if (process.getuid?.() !== 0) return [];
  const message = "you are root; the daemon is better run as an ordinary user";
  return [{ subject: "user", state: "warning", message }];
}

const portOfConfig = z.object({ http: z.object({ port: z.int() }) });

async function readToml(subject: string, file: string): Promise<{ finding: DoctorFinding; port?: number }> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") {
      return { finding: { subject, state: "ok", message: `no ${file}: everything has its default` } };
    }
    const message = `${file} cannot be read (${codeOf(error)})`;
    return { finding: { subject, state: "problem", message, remedy: `chmod u+r ${file}` } };
  }
  try {
    const port = portOfConfig.safeParse(parse(text)).data?.http.port;
    const finding: DoctorFinding = { subject, state: "ok", message: `${file} is valid TOML` };
    return port === undefined ? { finding } : { finding, port };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const why = error.message.split("\n")[0] ?? "not valid TOML";
    const message = `${file}, line ${error.line}, column ${error.column}: ${why}`;
    return { finding: { subject, state: "problem", message, remedy: `\${EDITOR:-vi} +${error.line} ${file}` } };
  }
}

async function dataFolder(folder: string): Promise<DoctorFinding> {
  const subject = "data folder";
  try {
    const { uid, mode } = await stat(folder);
    if (uid !== process.getuid?.()) {
      return { subject, state: "problem", message: `${folder} belongs to another user`, remedy: `ls -ld ${folder}` };
    }
    if ((mode & 0o077) !== 0) {
      return { subject, state: "problem", message: `${folder} is open to others`, remedy: `chmod 700 ${folder}` };
    }
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return { subject, state: "ok", message: `${folder} is made at the first start` };
    const message = `${folder} cannot be used (${codeOf(error)})`;
    return { subject, state: "problem", message, remedy: `chmod 700 ${folder}` };
  }
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= LOW_DISK_BYTES) return { subject, state: "ok", message: `${folder}, ${formatBytes(free)} free` };
  return { subject, state: "warning", message: `${folder}: only ${formatBytes(free)} free`, remedy: `df -h ${folder}` };
}

/** Without our daemon, nothing may listen there. */
async function portFinding(port: number): Promise<DoctorFinding> {
  const subject = `port ${port}`;
  if (port === 0) return { subject: "port", state: "ok", message: "the system chooses a free one" };
  const isTaken = await listens(port);
  if (!isTaken) return { subject, state: "ok", message: "free for the daemon" };
  return { subject, state: "problem", message: "another program listens on it", remedy: "ghost start --port 0" };
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, timeout: PROBE_MS });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket
      .once("connect", () => settle(true))
      .once("timeout", () => settle(true))
      .once("error", () => settle(false));
  });
}

async function engineFinding(): Promise<DoctorFinding> {
  const subject = "embedded engine";
  try {
    await access(new URL(import.meta.resolve("node-llama-cpp")));
    return { subject, state: "ok", message: "installed" };
  } catch {
    return { subject, state: "problem", message: "its package is not installed", remedy: "npm run setup" };
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}
