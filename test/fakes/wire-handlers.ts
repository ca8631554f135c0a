/**
 * A complete set of GhostApi handlers for tests of the fronts: it records what reaches it, and does what the test says.
 * Methods that no test uses fail loudly.
 */
import { type GhostHandlers, mapMethods } from "../../protocol/ghost-api.ts";
import type { SessionSummary } from "../../protocol/session.ts";
import type { Caller } from "../../server/daemon/bind-api.ts";
import type { Log, LogFields } from "../../server/platform/log.ts";

interface SeenCall {
  readonly method: string;
  readonly params: unknown;
  readonly caller: Caller;
}

export class WireProbe {
  /** Calls that reached a handler. */
  readonly seen: SeenCall[] = [];
  readonly logged: LogFields[] = [];
  readonly log: Log;
  readonly handlers: GhostHandlers<Caller>;
  /** Items that handlers of `daemon.logs` have made. */
  pulled = 0;
  /** What `daemon.logs` yields as lines. */
  source: (signal: AbortSignal) => AsyncIterable<string> = () => {
    throw new Error("the test set no source");
  };
  /** `session.list` waits for ever, whatever its signal says. */
  holdRequests = false;
  /** What `session.list` answers. */
  sessions: SessionSummary[] = [];
  /** `session.list` answers after this. */
  listAfter: Promise<void> | undefined;
  readonly #failures: { readonly thrown: unknown }[] = [];
  readonly #called = Promise.withResolvers<void>();
  readonly #aborted = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<void>();

  constructor() {
    const record = (fields: LogFields) => void this.logged.push(fields);
    this.log = { debug: record, info: record, warn: record, error: record };
    this.handlers = createHandlers(this);
  }

  /** The next `session.list` fails with this. */
  throwNext(thrown: unknown): void {
    this.#failures.push({ thrown });
  }

  /** Resolves once a handler has been called. */
  called(): Promise<void> {
    return this.#called.promise;
  }

  /** Resolves once the signal of a handler was aborted. */
  aborted(): Promise<void> {
    return this.#aborted.promise;
  }

  /** Resolves once a `daemon.logs` handler has ended. */
  finished(): Promise<void> {
    return this.#finished.promise;
  }

  enter(call: SeenCall, signal: AbortSignal): void {
    this.seen.push(call);
    signal.addEventListener("abort", () => this.#aborted.resolve(), { once: true });
    this.#called.resolve();
  }

  async *lines(signal: AbortSignal): AsyncGenerator<{ line: string }> {
    try {
      for await (const line of this.source(signal)) {
        this.pulled += 1;
        yield { line };
      }
    } finally {
      this.#finished.resolve();
    }
  }

  async answer(): Promise<void> {
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure.thrown;
    await this.listAfter;
    if (this.holdRequests) await new Promise<never>(() => {});
  }
}

function createHandlers(probe: WireProbe): GhostHandlers<Caller> {
  const unused: GhostHandlers<Caller> = mapMethods((name) => () => {
    throw new Error(`the test's handlers do not model ${name}`);
  });
  return {
    ...unused,
    daemon: {
      ...unused.daemon,
      async *logs(params, signal, caller) {
        probe.enter({ method: "daemon.logs", params, caller }, signal);
        yield* probe.lines(signal);
      },
    },
    completion: {
      async *create(params, signal, caller) {
        probe.enter({ method: "completion.create", params, caller }, signal);
        yield { kind: "text", text: params.prefix };
      },
    },
    chat: {
      async *send(params, signal, caller) {
        probe.enter({ method: "chat.send", params, caller }, signal);
        yield { kind: "text", text: params.text };
      },
    },
    session: {
      ...unused.session,
      async list(params, signal, caller) {
        probe.enter({ method: "session.list", params, caller }, signal);
        await probe.answer();
        return { sessions: probe.sessions };
      },
    },
  };
}
