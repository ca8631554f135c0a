/**
 * GitHub Copilot's agent runtime, by its official SDK, used as a plain language model: it gets no tools of its own, no files and no memory.
 * 1. The SDK is loaded, and the runtime started, when somebody first asks; it is stopped when nobody has asked for a while.
 * 2. The runtime is a process in a folder of its own. Its environment holds that folder and the user's GitHub token, and nothing else of ours (I5).
 * 3. One question is one session there, which is deleted behind the answer: what was asked stays in our transcript only.
 * 4. A runtime that dies is noticed: whoever waits for it is told, and the next question starts another.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { CopilotClient, CopilotSession, ModelInfo, SessionConfig } from "@github/copilot-sdk";
import type { Clock } from "../../base/clock.ts";
import { OperationalError } from "../../base/errors.ts";
import type { Secret } from "../../base/secret.ts";
import { preparePrivateFolder } from "../filesystem.ts";
import { type StandingPermit, THIS_MACHINE } from "../permit.ts";

export interface CopilotPlace {
  /** Covers `cmd.exec` of the executable, and reading and writing in the folder. */
  readonly permit: StandingPermit;
  /** Undefined where there is none for this platform. */
  readonly executable: string | undefined;
  readonly folder: string;
  /** For tests: the real runtime asks this server instead of GitHub. */
  readonly upstream?: { readonly baseUrl: string; readonly model: string } | undefined;
}

export interface CopilotQuestion {
  readonly model: string;
  readonly system: string;
  readonly prompt: string;
  /** Called by the model, run by nobody: the calls are in the events. */
  readonly tools: readonly {
    readonly name: string;
    readonly description: string;
    readonly parameters: Readonly<Record<string, unknown>>;
  }[];
  readonly effort: "low" | "medium" | "high" | "xhigh" | undefined;
}

export interface CopilotWatch {
  /** One of the runtime's events, unchecked. */
  onEvent(type: string, data: unknown): void;
  /** The runtime is gone: nothing follows. */
  onGone(error: OperationalError): void;
}

export interface CopilotRuntime extends AsyncDisposable {
  /** What GitHub lists for the token's owner, unchecked. @throws OperationalError `upstream_unreachable` */
  listModels(token: Secret, signal: AbortSignal): Promise<readonly unknown[]>;
  /** Resolves when the question is there. Disposing the conversation stops the answer at once. @throws OperationalError `upstream_unreachable` */
  ask(token: Secret, question: CopilotQuestion, watch: CopilotWatch): Promise<Disposable>;
}

/** A start takes a fifth of a second; a machine under load may need much longer. */
const START_TIMEOUT_MS = 30_000;
/** To take a question takes it some 40 ms. */
const ASK_MS = 20_000;
/** It holds 100 MB: it goes when nobody has asked for so long. */
const IDLE_MS = 10 * 60_000;
/** How soon a runtime that died is noticed. */
const PING_MS = 1_000;
/** A question to a process that has just died may stay without any answer; one that is only busy answers within this time. */
const PONG_MS = 5_000;
/** For a clean end; then it is killed. */
const STOP_MS = 2_000;

/** Where npm put the runtime of this machine's platform; undefined where there is none. */
export function findCopilotExecutable(): string | undefined {
  const require = createRequire(import.meta.url);
  for (const system of [process.platform, `${process.platform}musl`]) {
    const platform = `${system}-${process.arch}`;
    try {
      const folder = dirname(require.resolve(`@github/copilot-sdk-${platform}/package.json`));
      const file = join(folder, "prebuilds", platform, "copilot-runtime");
      if (existsSync(file)) return file;
    } catch {
      // It is an optional package: that of another platform is not there.
    }
  }
  return undefined;
}

export function createCopilotRuntime(
  place: CopilotPlace,
  options: { readonly clock: Clock; readonly uid: number },
): CopilotRuntime {
  return new SdkRuntime(place, options);
}

interface Running {
  readonly client: CopilotClient;
  readonly token: string;
  readonly watches: Set<CopilotWatch>;
  readonly pings: Disposable;
  isLost: boolean;
  settle(detail?: string): void;
}

class SdkRuntime implements CopilotRuntime {
  readonly #place: CopilotPlace;
  readonly #clock: Clock;
  readonly #uid: number;
  #running: { readonly token: string; readonly ready: Promise<Running> } | undefined;
  #idle: Disposable | undefined;
  /** Sessions that are being deleted, and runtimes that are being stopped. */
  readonly #closing = new Set<Promise<void>>();

  constructor(place: CopilotPlace, { clock, uid }: { readonly clock: Clock; readonly uid: number }) {
    this.#place = place;
    this.#clock = clock;
    this.#uid = uid;
  }

  async listModels(token: Secret, signal: AbortSignal): Promise<readonly unknown[]> {
    const { client } = await this.#ready(token);
    signal.throwIfAborted();
    try {
      return await untilAborted(client.listModels(), signal);
    } catch (error) {
      signal.throwIfAborted();
      throw gone(`Copilot does not list its models: ${wordsOf(error)}`, error);
    }
  }

  async ask(token: Secret, question: CopilotQuestion, watch: CopilotWatch): Promise<Disposable> {
    const running = await this.#ready(token);
    running.watches.add(watch);
    let session: CopilotSession | undefined;
    try {
      session = await this.#within(ASK_MS, running.client.createSession(this.#session(question)));
      const unsubscribe = session.on((event) => watch.onEvent(event.type, event.data));
      await this.#within(ASK_MS, session.send({ prompt: question.prompt }));
      const open = session;
      let isOpen = true;
      return {
        [Symbol.dispose]: () => {
          if (!isOpen) return;
          isOpen = false;
          unsubscribe();
          this.#close(running, open, watch);
        },
      };
    } catch (error) {
      if (session === undefined) running.watches.delete(watch);
      else this.#close(running, session, watch);
      throw gone(`Copilot's runtime did not take the question: ${wordsOf(error)}`, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#idle?.[Symbol.dispose]();
    // Questions are deleted before their runtime goes (3).
    await Promise.all(this.#closing);
    const running = this.#running;
    this.#running = undefined;
    if (running !== undefined) this.#track(running.ready.then((ready) => this.#stop(ready)));
    await Promise.all(this.#closing);
  }

  #ready(token: Secret): Promise<Running> {
    this.#stayAwake();
    const text = token.reveal();
    const current = this.#running;
    if (current?.token === text) return current.ready;
    // Another account: nothing of the old one is left behind.
    if (current !== undefined) this.#track(current.ready.then((ready) => this.#stop(ready)));
    const ready = this.#start(text);
    const started = { token: text, ready };
    this.#running = started;
    ready.catch(() => {
      if (this.#running === started) this.#running = undefined;
    });
    return ready;
  }

  /** (2) */
  async #start(token: string): Promise<Running> {
    const { permit, executable, folder, upstream } = this.#place;
    if (executable === undefined) throw gone("Copilot's SDK has no runtime for this platform");
    preparePrivateFolder(permit, folder, this.#uid);
    const spent = permit.spend({
      capability: "cmd.exec",
      resource: { kind: "argv", executable, args: ["--headless", "--stdio"], cwd: folder },
      host: THIS_MACHINE,
    });
    const { CopilotClient: Client, RuntimeConnection } = await import("@github/copilot-sdk");
    const client = new Client({
      mode: "empty",
      baseDirectory: folder,
      workingDirectory: folder,
      logLevel: "none",
      useLoggedInUser: false,
      connection: RuntimeConnection.forStdio({
        path: executable,
        env: { HOME: folder, PATH: "/usr/bin:/bin", LANG: "C.UTF-8" },
      }),
      ...(upstream === undefined ? { gitHubToken: token } : { onListModels: () => [testModel(upstream.model)] }),
    });
    try {
      await this.#within(START_TIMEOUT_MS, client.start());
    } catch (error) {
      await client.forceStop().catch(() => {}); // It may never have started.
      spent.settle({ kind: "failed", detail: wordsOf(error) });
      throw gone(`Copilot's runtime does not start: ${wordsOf(error)}`, error);
    }
    const watches = new Set<CopilotWatch>();
    const running: Running = {
      client,
      token,
      watches,
      isLost: false,
      pings: this.#clock.every(PING_MS, () => {
        if (watches.size === 0) return;
        this.#within(PONG_MS, client.ping()).catch((error: unknown) => this.#lose(running, error));
      }),
      settle: (detail) => spent.settle(detail === undefined ? { kind: "done" } : { kind: "failed", detail }),
    };
    return running;
  }

  #session({ model, system, prompt: _sent, tools, effort }: CopilotQuestion): SessionConfig {
    const { upstream } = this.#place;
    return {
      model,
      clientName: "ghoststack",
      streaming: true,
      availableTools: ["custom:*"],
      // Without a handler a call stays open until the session ends: its client has it by then.
      tools: tools.map((tool) => ({ ...tool, skipPermission: true, overridesBuiltInTool: true })),
      systemMessage: { mode: "replace", content: system },
      infiniteSessions: { enabled: false },
      ...(effort === undefined ? {} : { reasoningEffort: effort }),
      ...(upstream === undefined
        ? {}
        : { provider: { type: "openai", baseUrl: upstream.baseUrl, apiKey: "none" } as const }),
    };
  }

  /** (3) */
  #close({ client, watches }: Running, session: CopilotSession, watch: CopilotWatch): void {
    watches.delete(watch);
    this.#stayAwake();
    const { sessionId } = session;
    const deleted = session
      .abort()
      .then(() => session.disconnect())
      .then(() => client.deleteSession(sessionId));
    // A runtime that is gone has no sessions; what it left in its folder goes with the next start.
    this.#track(this.#within(STOP_MS, deleted));
  }

  /** (4) */
  #lose(running: Running, cause: unknown): void {
    if (running.isLost) return;
    running.isLost = true;
    if (this.#running?.token === running.token) this.#running = undefined;
    const error = gone(`Copilot's runtime ended: ${wordsOf(cause)}`, cause);
    for (const watch of running.watches) watch.onGone(error);
    running.watches.clear();
    this.#track(this.#stop(running, wordsOf(cause)));
  }

  async #stop({ client, pings, settle }: Running, detail?: string): Promise<void> {
    pings[Symbol.dispose]();
    try {
      await this.#within(STOP_MS, client.stop());
    } catch {
      await client.forceStop().catch(() => {}); // It is gone already.
    }
    settle(detail);
  }

  /** (1) */
  #stayAwake(): void {
    this.#idle?.[Symbol.dispose]();
    this.#idle = this.#clock.after(IDLE_MS, () => {
      const running = this.#running;
      if (running === undefined) return;
      this.#track(
        running.ready.then((ready) => {
          if (ready.watches.size > 0) return this.#stayAwake();
          if (this.#running === running) this.#running = undefined;
          return this.#stop(ready);
        }),
      );
    });
  }

  #track(work: Promise<unknown>): void {
    const tracked = work.then(
      () => {},
      () => {}, // It ends what nobody waits for any more.
    );
    this.#closing.add(tracked);
    void tracked.then(() => this.#closing.delete(tracked));
  }

  async #within<Value>(ms: number, work: Promise<Value>): Promise<Value> {
    const late = Promise.withResolvers<never>();
    using _deadline = this.#clock.after(ms, () => late.reject(new Error(`no answer within ${ms} ms`)));
    work.catch(() => {}); // After the deadline nobody hears it.
    return await Promise.race([work, late.promise]);
  }
}

async function untilAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  work.catch(() => {}); // After the abort nobody hears it.
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

const wordsOf = (error: unknown) => (error instanceof Error ? error.message : String(error)).slice(0, 300);
const gone = (message: string, cause?: unknown) => new OperationalError("upstream_unreachable", message, { cause });

function testModel(id: string): ModelInfo {
  const supports = { vision: false, reasoningEffort: true };
  const limits = { max_context_window_tokens: 128_000, max_output_tokens: 16_000 };
  return { id, name: id, capabilities: { supports, limits }, supportedReasoningEfforts: ["low", "high"] };
}
