/**
 * `npm start`: runs the daemon in the foreground, shows what it found, and proves that everything works with a real completion of a real file of
 * this repository. `npm start -- "prompt"` answers that prompt too; the daemon's own flags may stand there as well.
 *
 * 1. Ctrl-C (and SIGTERM) drains the daemon and ends with its exit code; a daemon that dies ends this with 1 and its last words.
 * 2. A daemon that runs already on these folders is used, said so, and left running.
 * 3. A demonstration that fails says why; it does not take the daemon down.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { showAnswer } from "../clients/cli/answer.ts";
import { connect } from "../clients/cli/context.ts";
import {
  type DaemonOptions,
  daemonArguments,
  isRoot,
  ROOT_WARNING,
  type Ready,
  tryConnect,
  untilReady,
} from "../clients/cli/daemon-process.ts";
import { listModels } from "../clients/cli/commands/models.ts";
import { passSignalsOn } from "../clients/cli/foreground.ts";
import { createOutput } from "../clients/cli/output.ts";
import { escapeLine } from "../clients/cli/terminal-text.ts";
import packageJson from "../package.json" with { type: "json" };
import { GhostApiError } from "../protocol/errors.ts";
import type { GhostApi } from "../protocol/ghost-api.ts";
import { defaultLocations } from "../protocol/node/locations.ts";
import { checkPrivateFolder } from "../protocol/node/private-place.ts";
import { showProof } from "./start/proof.ts";

const USAGE = `npm start                     start the daemon in the foreground and show that it works
npm start -- "prompt"         answer this prompt too
npm start -- [flags]          --port N  --config FILE  --data-dir DIR  --runtime-dir DIR
`;
const MAX_WORDS_CHARACTERS = 4000;
/** The demonstration weights know no end: what they write after a few words only repeats itself. */
const DEMONSTRATION_TOKENS = 32;

interface Arguments {
  readonly daemon: DaemonOptions;
  readonly prompt: string;
}

const output = createOutput(false);
try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof GhostApiError)) throw error;
  output.failure(error);
  process.exitCode = error.code === "usage" ? 2 : 1;
}

async function main(): Promise<number> {
  const args = readArguments(process.argv.slice(2));
  if (args === undefined) {
    process.stdout.write(USAGE);
    return 0;
  }
  output.line(
    output.paint("bold", `GhostStack ${packageJson.version}`) + ": one daemon in front of every language model",
  );
  const locations = defaultLocations(args.daemon);
  await checkPrivateFolder(locations.runtimeDir);
  const running = await tryConnect(locations);
  if (running === undefined) return await runDaemon(args);
  using client = running;
  const status = await client.api.daemon.status({}, new AbortController().signal);
  output.line(`A daemon runs already on these folders (pid ${status.pid}): this uses it and leaves it running.`);
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  await demonstrate(client.api, { addresses: status, prompt: args.prompt, signal: stop.signal });
  output.line("  stop the daemon       npx ghost stop");
  return 0;
}

function readArguments(words: readonly string[]): Arguments | undefined {
  const text = { type: "string" } as const;
  try {
    const { values, positionals } = parseArgs({
      args: [...words],
      allowPositionals: true,
      options: { port: text, config: text, "data-dir": text, "runtime-dir": text, help: { type: "boolean" } },
    });
    if (values.help === true) return undefined;
    const port = values.port === undefined ? undefined : Number(values.port);
    if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
      throw new TypeError(`--port takes a whole number from 0 to 65535, not "${values.port}"`);
    }
    const daemon = { config: values.config, dataDir: values["data-dir"], runtimeDir: values["runtime-dir"], port };
    return { daemon, prompt: positionals.join(" ").trim() };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new GhostApiError({ code: "usage", message: `${error.message}\n${USAGE}`, details: {} }, { cause: error });
  }
}

/** Our child: its life is ours (1). */
async function runDaemon({ daemon, prompt }: Arguments): Promise<number> {
  if (isRoot()) output.note(ROOT_WARNING, "yellow");
  // In a process group of its own, so that Ctrl-C reaches it once: through us.
  const child = spawn(process.execPath, daemonArguments(daemon), { detached: true, stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "close");
  let isReady = false;
  const lastWords = keepLastWords(child, () => isReady);
  const stopping = passSignalsOn(child, () => output.line("\nStopping; answers that are being written may finish."));
  const ready = await untilReady(child, lastWords, new AbortController().signal);
  isReady = true;
  const gone = ended.then(() => {
    if (!stopping.aborted) throw diedAlone(child, lastWords());
  });
  await Promise.race([gone, demonstrateConnected({ daemon, prompt }, ready, stopping)]);
  await gone;
  output.line("The daemon has stopped.");
  return child.exitCode ?? 1;
}

/** What it says before it is ready comes with the failure; later words are shown as they come. */
function keepLastWords(child: ChildProcess, isReady: () => boolean): () => string {
  let words = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    words = (words + text).slice(-MAX_WORDS_CHARACTERS);
    if (isReady()) process.stderr.write(text);
  });
  return () => words;
}

function diedAlone(child: ChildProcess, words: string): GhostApiError {
  const how = child.exitCode === null ? `was ended by ${child.signalCode}` : `ended with code ${child.exitCode}`;
  const message = `the daemon ${how}${words === "" ? "" : "; its last words are above"}`;
  return new GhostApiError({ code: "daemon_unreachable", message, details: {} });
}

async function demonstrateConnected({ daemon, prompt }: Arguments, ready: Ready, signal: AbortSignal): Promise<void> {
  using client = await connect(defaultLocations(daemon));
  await demonstrate(client.api, { addresses: ready, prompt, signal });
  if (!signal.aborted) output.line(`  stop the daemon       Ctrl-C`);
}

interface Demonstration {
  readonly addresses: { readonly http: string; readonly socket: string };
  readonly prompt: string;
  readonly signal: AbortSignal;
}

async function demonstrate(api: GhostApi, { addresses, prompt, signal }: Demonstration): Promise<void> {
  output.line(`  HTTP    ${escapeLine(addresses.http)}/v1   (OpenAI's API; \`npx ghost env\`: the key)`);
  output.line(`  socket  ${escapeLine(addresses.socket)}   (editors and \`ghost\`)`);
  output.line();
  await section(signal, async () => listModels(output, await api.model.list({}, signal)));
  output.line();
  await section(signal, () => showProof(output, api, signal));
  if (prompt !== "") await section(signal, () => answerPrompt(api, prompt, signal));
  if (signal.aborted) return;
  output.line();
  output.line(output.paint("bold", "Next"));
  output.line("  talk to a model       npx ghost chat");
  output.line("  use Ollama            ollama serve   (found by itself on 127.0.0.1:11434)");
  output.line("  fetch real weights    npx ghost models pull hf:OWNER/REPOSITORY/FILE.gguf");
  output.line("  any OpenAI server     [providers.compatible.NAME] in ghost.toml: README.md");
  output.line('  other programs        eval "$(npx ghost env)"');
  output.line("  what is missing       npx ghost doctor");
}

async function answerPrompt(api: GhostApi, prompt: string, signal: AbortSignal): Promise<void> {
  output.line();
  output.line(output.paint("bold", `> ${escapeLine(prompt)}`));
  const { models } = await api.model.list({}, signal);
  const { plan } = await api.route.explain({ model: "ghost/auto" }, signal);
  const isDemonstration = models.some((model) => model.ref === plan[0] && model.demonstration === true);
  const limit = isDemonstration ? { maxTokens: DEMONSTRATION_TOKENS } : {};
  await showAnswer(output, api.chat.send({ text: prompt, ...limit }, signal));
}

/** (3) */
async function section(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  if (signal.aborted) return;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof GhostApiError)) throw error;
    if (!signal.aborted) output.failure(error);
  }
}
