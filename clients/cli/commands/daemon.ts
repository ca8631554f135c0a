/** `ghost start`, `ghost stop`, `ghost status`: the daemon's life. */
import type { Command } from "commander";
import { z } from "zod";
import type { DaemonStatus } from "../../../protocol/daemon.ts";
import type { CliContext, Runner } from "../context.ts";
import {
  type DaemonOptions,
  daemonArguments,
  ensureDaemon,
  isRoot,
  ROOT_WARNING,
  tryConnect,
  untilGone,
} from "../daemon-process.ts";
import { runForeground } from "../foreground.ts";
import { asCalled, commandName } from "../invocation.ts";
import { examples, wholeNumber } from "../options.ts";
import { failure } from "../output.ts";
import { escapeLine, formatBytes, formatDuration, plural } from "../terminal-text.ts";

/** The daemon drains open answers for 10 s; then it ends, and a little time for that. */
const STOP_MS = 30_000;

const startOptions = z.object({
  foreground: z.boolean().default(false),
  config: z.string().optional(),
  port: z.number().optional(),
});

export function registerDaemon(program: Command, run: Runner): void {
  program
    .command("start")
    .description("start the daemon in the background")
    .option("-f, --foreground", "stay attached; Ctrl-C stops it")
    .option("--config <file>", "settings (default: $XDG_CONFIG_HOME/ghoststack/ghost.toml)")
    .option("--port <number>", "HTTP port on 127.0.0.1; 0 picks a free one", wholeNumber(0, 65_535))
    .addHelpText("after", examples("ghost start", "ghost start --port 0", "ghost start --foreground"))
    .action(run((context, command) => start(context, startOptions.parse(command.opts()))));
  program
    .command("stop")
    .description("stop the daemon; answers that are being written may finish (up to 10 s)")
    .addHelpText("after", examples("ghost stop"))
    .action(run((context) => stop(context)));
  program
    .command("status")
    .description("whether the daemon runs, where it listens, and how much it does (exit code 1 when it does not run)")
    .addHelpText("after", examples("ghost status", "ghost status --json"))
    .action(run((context) => status(context)));
}

async function start(context: CliContext, options: z.output<typeof startOptions>): Promise<number> {
  const { output, folders, signal } = context;
  const daemon: DaemonOptions = { ...folders, config: options.config, port: options.port };
  if (isRoot()) output.note(ROOT_WARNING, "yellow");
  if (options.foreground) return await runForeground(daemonArguments(daemon), context);
  const started = await ensureDaemon(daemon, signal);
  const { alreadyRunning, pid, http, socket, version } = started;
  if (output.json) {
    output.document({ alreadyRunning, pid, http, socket, version });
    return 0;
  }
  output.line(
    alreadyRunning
      ? `The daemon runs already (pid ${pid}, version ${escapeLine(version)}).`
      : `The daemon runs (pid ${pid}, version ${escapeLine(version)}).`,
  );
  output.line(`  HTTP    ${escapeLine(http)}   (\`${commandName()} env\` prints the settings for other programs)`);
  output.line(`  socket  ${escapeLine(socket)}`);
  return 0;
}

async function stop(context: CliContext): Promise<number> {
  const { output, locations, signal } = context;
  using client = await tryConnect(locations);
  if (client === undefined) {
    if (output.json) output.document({ stopped: false, wasRunning: false });
    else output.line("No daemon runs.");
    return 0;
  }
  const { pid } = await client.api.daemon.status({}, signal);
  const { draining } = await client.api.daemon.stop({}, signal);
  if (draining > 0) output.note(`waiting for ${plural(draining, "open answer")}`);
  if (!(await untilGone(pid, STOP_MS, signal))) {
    throw failure("daemon_stopping", `the daemon (pid ${pid}) still runs after ${STOP_MS / 1000} s`, { pid });
  }
  if (output.json) output.document({ stopped: true, wasRunning: true, pid });
  else output.line(`The daemon (pid ${pid}) has stopped.`);
  return 0;
}

async function status(context: CliContext): Promise<number> {
  const { output, locations, signal } = context;
  using client = await tryConnect(locations);
  if (client === undefined) {
    if (output.json) output.document({ running: false, socket: locations.socket });
    else output.line(asCalled("No daemon runs. Start it with `ghost start`."));
    return 1;
  }
  const found = await client.api.daemon.status({}, signal);
  if (output.json) output.document({ running: true, ...found });
  else for (const line of describe(found, Date.now())) output.line(line);
  return 0;
}

function describe(found: DaemonStatus, nowMs: number): readonly string[] {
  const engine =
    found.engine.pid === undefined ? found.engine.state : `${found.engine.state} (pid ${found.engine.pid})`;
  const uptime = formatDuration(nowMs - found.startedAtMs);
  const rows: readonly (readonly [string, string])[] = [
    ["daemon", `runs since ${uptime} (pid ${found.pid}, version ${found.version})`],
    ["HTTP", found.http],
    ["socket", found.socket],
    ["settings", found.configFile],
    ["data", found.dataDir],
    ["load", `${plural(found.openAnswers, "open answer")}, ${plural(found.clients, "client")}`],
    ["memory", formatBytes(found.rssBytes)],
    ["engine", engine],
  ];
  return rows.map(([name, value]) => `${name.padEnd(9)} ${escapeLine(value)}`);
}
