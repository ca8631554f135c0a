/**
 * The OS keyring: Secret Service on Linux (GNOME Keyring, KWallet, KeePassXC), the Keychain on macOS.
 * 1. It is never asked inside the daemon: `keyring-child.ts` lives for one request and is ended when it does not answer in time.
 * 2. Whoever has no keyring pays for one look a minute, and only once a key is stored or asked for; whoever does not unlock it is not asked all day.
 * 3. A secret travels over the child's IPC channel: never in arguments or an environment.
 * The library (@napi-rs/keyring) carries a prebuilt binary for each platform and needs neither libsecret nor a compiler.
 */
import { fileURLToPath } from "node:url";
import type { Clock, Environment } from "../../base/clock.ts";
import { Secret } from "../../base/secret.ts";
import { createTurns } from "../../base/turns.ts";
import type { StandingPermit } from "../permit.ts";
import { startChild } from "../process.ts";
import { type KeyringReply, keyringReplySchema, type KeyringRequest } from "./keyring-protocol.ts";

/** `absent`: there is none that answers. `refused`: it answers, and says no: it is locked, or its owner said no. */
export type KeyringAnswer<Value> =
  | { readonly kind: "done"; readonly value: Value }
  | { readonly kind: "absent" | "refused"; readonly why: string };

export interface Keyring extends AsyncDisposable {
  get(account: string): Promise<KeyringAnswer<Secret | undefined>>;
  set(account: string, secret: Secret): Promise<KeyringAnswer<undefined>>;
  /** `value`: whether there was something. */
  delete(account: string): Promise<KeyringAnswer<boolean>>;
  /** Its owner is there: the next call asks, whatever was answered before. */
  lookAgain(): void;
}

export interface KeyringOptions {
  /** Covers `cmd.exec` of `nodeExecutable`. */
  readonly permit: StandingPermit;
  readonly nodeExecutable: string;
  readonly environment: Environment;
  readonly clock: Clock;
  /** As in `process.platform`. */
  readonly platform: string;
}

const SERVICE = "ghoststack";
const ENTRY = fileURLToPath(new URL("keyring-child.ts", import.meta.url));
/** Node's own start on a busy machine, and one round trip of D-Bus. Who hangs longer would hold up a model list that waits for its key. */
const REACH_MS = 5_000;
/** Its owner may have to type a password to unlock it. */
const ANSWER_MS = 60_000;
/** How long a keyring that was not there is not looked for again. */
const ABSENT_MS = 60_000;
/** How long one that said no is not read again: each look may put a question on its owner's screen. */
const REFUSED_MS = 600_000;
/** One look-up for each provider, and then some. */
const MAX_WAITING = 64;
/** All that a D-Bus client or the Keychain needs to find its service; nothing with a key in it (I5). */
const VARIABLES = ["HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"] as const;

export function createKeyring(options: KeyringOptions): Keyring {
  return new ChildKeyring(options);
}

class ChildKeyring implements Keyring {
  readonly #options: KeyringOptions;
  readonly #takeTurn = createTurns(MAX_WAITING);
  readonly #lifetime = new AbortController();
  /** What it said last, as long as it is not asked again. */
  #quiet: { readonly reply: Settled; readonly untilMs: number } | undefined;

  constructor(options: KeyringOptions) {
    this.#options = options;
  }

  async get(account: string): Promise<KeyringAnswer<Secret | undefined>> {
    const reply = await this.#ask({ kind: "get", service: SERVICE, account });
    if (reply.kind !== "done") return reply;
    return { kind: "done", value: reply.secret === undefined ? undefined : new Secret(reply.secret) };
  }

  async set(account: string, secret: Secret): Promise<KeyringAnswer<undefined>> {
    const reply = await this.#ask({ kind: "set", service: SERVICE, account, secret: secret.reveal() });
    return reply.kind === "done" ? { kind: "done", value: undefined } : reply;
  }

  async delete(account: string): Promise<KeyringAnswer<boolean>> {
    const reply = await this.#ask({ kind: "delete", service: SERVICE, account });
    return reply.kind === "done" ? { kind: "done", value: reply.existed ?? false } : reply;
  }

  lookAgain(): void {
    this.#quiet = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lifetime.abort();
  }

  #ask(request: KeyringRequest): Promise<Settled> {
    return this.#takeTurn(async () => {
      const { clock } = this.#options;
      const known = this.#quiet;
      if (known !== undefined && clock.monotonic() < known.untilMs) {
        // To store or to remove something is its owner's wish, and worth a question.
        if (known.reply.kind === "absent" || request.kind === "get") return known.reply;
      }
      const reply = mayExist(this.#options) ? await this.#exchange(request) : NO_BUS;
      const quietMs = reply.kind === "absent" ? ABSENT_MS : reply.kind === "refused" ? REFUSED_MS : 0;
      this.#quiet = { reply, untilMs: clock.monotonic() + quietMs };
      return reply;
    });
  }

  /** One child, one request, one answer. */
  async #exchange(request: KeyringRequest): Promise<Settled> {
    const { permit, nodeExecutable, environment, clock } = this.#options;
    const { signal } = this.#lifetime;
    if (signal.aborted) return STOPPED;
    const settled = Promise.withResolvers<Settled>();
    await using child = startChild(permit, {
      executable: nodeExecutable,
      args: ["--no-warnings", ENTRY],
      cwd: "/",
      environment: childEnvironment(environment),
      clock,
      onMessage: (message) => {
        const reply = keyringReplySchema.safeParse(message);
        if (!reply.success) settled.resolve({ kind: "absent", why: "its process did not make sense" });
        else if (reply.data.kind === "reached") reached();
        else settled.resolve(reply.data);
      },
      onLine: () => {}, // The library's own words, which nobody has checked for keys.
      onExit: ({ code, startError }) =>
        settled.resolve({ kind: "absent", why: startError?.message ?? `its process ended with code ${code}` }),
    });
    let deadline = clock.after(REACH_MS, () =>
      settled.resolve({ kind: "absent", why: `it did not answer within ${REACH_MS / 1000} s` }),
    );
    const reached = () => {
      deadline[Symbol.dispose]();
      const why = `it did not answer within ${ANSWER_MS / 1000} s; it may wait for its password`;
      deadline = clock.after(ANSWER_MS, () => settled.resolve({ kind: "refused", why }));
    };
    const stop = () => settled.resolve(STOPPED);
    signal.addEventListener("abort", stop, { once: true });
    child.send(request);
    try {
      return await settled.promise;
    } finally {
      deadline[Symbol.dispose]();
      signal.removeEventListener("abort", stop);
    }
  }
}

type Settled = Exclude<KeyringReply, { readonly kind: "reached" }>;

const NO_BUS = { kind: "absent", why: "there is no D-Bus session" } as const;
const STOPPED = { kind: "refused", why: "the daemon stops" } as const;

/** Without a session bus there is no Secret Service: no need to start a process to learn that. */
function mayExist({ platform, environment }: KeyringOptions): boolean {
  if (platform === "darwin" || platform === "win32") return true;
  return environment.get("DBUS_SESSION_BUS_ADDRESS") !== undefined || environment.get("XDG_RUNTIME_DIR") !== undefined;
}

function childEnvironment(environment: Environment): Readonly<Record<string, string>> {
  return Object.fromEntries(
    VARIABLES.flatMap((name) => {
      const value = environment.get(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
