/**
 * ghostd's life: parses the command line, refuses root, starts the daemon (`compose.ts`) and stops it on SIGTERM or SIGINT.
 * Exit codes: 0 stopped as asked, 1 a failure named on stderr, 2 a command line that was not understood.
 */
import { parseArgs } from "node:util";
import { errorCatalogue } from "../../protocol/errors.ts";
import { type GhostError, toGhostError, UserError } from "../base/errors.ts";
import { boundYoungGeneration } from "../platform/young-generation.ts";
import { systemClock, systemEnvironment, systemIds } from "../platform/system-clock.ts";
import { type Daemon, startDaemon } from "./compose.ts";
import { VERSION } from "./version.ts";

const USAGE = `ghostd ${VERSION}: the GhostStack daemon

Usage: node server/daemon/main.ts [options]

  --config FILE       settings (default: $XDG_CONFIG_HOME/ghoststack/ghost.toml)
  --data-dir DIR      sessions, keys, models (default: $XDG_DATA_HOME/ghoststack)
  --runtime-dir DIR   the socket (default: $XDG_RUNTIME_DIR/ghoststack)
  --port N            HTTP port on 127.0.0.1; 0 picks a free one
  --ready-json        print one line of JSON on stdout once everything listens
  --allow-root        run although the user is root; for containers and tests
  --help, --version
`;

function readFlags(args: readonly string[]) {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        config: { type: "string" },
        "data-dir": { type: "string" },
        "runtime-dir": { type: "string" },
        port: { type: "string" },
        "ready-json": { type: "boolean", default: false },
        "allow-root": { type: "boolean", default: false },
        help: { type: "boolean", default: false },
        version: { type: "boolean", default: false },
      },
    });
    const port =
      values.port === undefined ? undefined : /^\d{1,5}$/.test(values.port) ? Number(values.port) : Number.NaN;
    if (port !== undefined && !(port <= 65_535)) {
      throw new UserError("usage", `--port takes a whole number from 0 to 65535, not "${values.port}"`);
    }
    return { ...values, port };
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError("usage", error instanceof Error ? error.message : String(error), { cause: error });
  }
}

async function main(): Promise<void> {
  const flags = readFlags(process.argv.slice(2));
  if (flags.help || flags.version) {
    process.stdout.write(flags.help ? USAGE : `${VERSION}\n`);
    return;
  }
  // Node's own crash reports list the environment, in which keys of providers may be (I5).
  process.report.excludeEnv = true;
  const environment = systemEnvironment();
  if (environment.uid === 0 && !flags["allow-root"]) {
    throw new UserError(
      "runs_as_root",
      "ghostd runs as your own user, not as root; pass --allow-root where there is no other, as in a container",
    );
  }
  const daemon = await startDaemon({
    flags: { config: flags.config, dataDir: flags["data-dir"], runtimeDir: flags["runtime-dir"] },
    port: flags.port,
    environment,
    clock: systemClock,
    ids: systemIds,
    nodeExecutable: process.execPath,
  });
  const stopped = untilStopped(daemon);
  using _young = boundYoungGeneration();
  if (flags["ready-json"]) {
    process.stdout.write(
      `${JSON.stringify({ ready: true, http: daemon.http, socket: daemon.socket, version: VERSION })}\n`,
    );
  } else {
    process.stdout.write(`ghostd ${VERSION} listens on ${daemon.http} and ${daemon.socket}\n`);
  }
  await stopped;
}

/** A second signal does not wait any longer. */
async function untilStopped(daemon: Daemon): Promise<void> {
  let signals = 0;
  const stop = () => {
    signals += 1;
    if (signals > 1) process.exit(1);
    daemon.stop();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", () => {
    daemon.reload().catch((error: unknown) => daemon.log.error({ event: "reload.failed", error }));
  });
  // The reader of our stdout may be gone; the daemon goes on.
  process.stdout.on("error", () => {});
  process.stderr.on("error", () => {});
  // The process ends after this one; its reason must be where people look for it.
  process.on("uncaughtExceptionMonitor", (error) => daemon.log.error({ event: "uncaught.exception", error }));
  process.on("unhandledRejection", (reason) => daemon.log.error({ event: "unhandled.rejection", error: reason }));
  await daemon.stopped;
}

function report(error: GhostError): void {
  process.stderr.write(`ghostd: ${error.message}\n  ${errorCatalogue[error.code].advice}\n`);
  if (error.family === "bug")
    process.stderr.write(`${error.stack ?? ""}\n${error.cause instanceof Error ? `${error.cause.stack}\n` : ""}`);
}

/** Runs the daemon to its end; the process's exit code. */
export async function runGhostd(): Promise<number> {
  try {
    await main();
    return 0;
  } catch (thrown) {
    const error = toGhostError(thrown);
    report(error);
    return error.code === "usage" ? 2 : 1;
  }
}
