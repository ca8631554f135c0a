/**
 * GhostApi: the one interface of every face.
 *
 * The table below is its only definition. From it derive the TypeScript interface, the JSON-RPC methods (`ghost/<namespace>/<method>`),
 * the validation on both sides, and docs/protocol.md. Two implementations exist: in process (`server/daemon/ghost-server.ts`) and over
 * JSON-RPC (`protocol/ghost-client.ts`); the same wire tests run against both.
 *
 * Every method takes an `AbortSignal`; aborting stops the work behind it and rejects with `cancelled`. Every failure is a `GhostApiError`
 * with a code of the catalogue. A stream is an async iterable; leaving its loop early cancels it.
 */
import { z } from "zod";
import { approvalRespondParams, approvalRespondResult, approvalWatchUpdate } from "./approval.ts";
import { chatSendParams, chatUpdate } from "./chat.ts";
import { completionParams, completionUpdate } from "./completion.ts";
import { daemonDoctorResult, daemonLogLine, daemonLogsParams, daemonStatusResult, daemonStopResult } from "./daemon.ts";
import {
  keyListResult,
  keyModelResult,
  keyRemoveParams,
  keyRemoveResult,
  keySetParams,
  keySetResult,
  keyTestParams,
  keyTestResult,
} from "./key.ts";
import { ledgerListParams, ledgerListResult } from "./ledger.ts";
import { modelListParams, modelListResult, modelPullParams, modelPullUpdate } from "./model.ts";
import { policyGetResult } from "./policy.ts";
import { routeDecisionSchema, routeExplainParams } from "./route.ts";
import {
  sessionDeleteParams,
  sessionDeleteResult,
  sessionGetParams,
  sessionGetResult,
  sessionListParams,
  sessionListResult,
  sessionWatchParams,
  sessionWatchUpdate,
} from "./session.ts";
import { settingsGetResult } from "./settings.ts";
import { usageSummaryParams, usageSummaryResult } from "./usage.ts";

/** The protocol's major version; it is part of the socket's name. Within one major version, changes only add. */
export const PROTOCOL_VERSION = 1;

const none = z.object({});

const request = <Params extends z.ZodType, Result extends z.ZodType>(summary: string, params: Params, result: Result) =>
  ({ kind: "request", summary, params, result }) as const;
const stream = <Params extends z.ZodType, Item extends z.ZodType>(summary: string, params: Params, item: Item) =>
  ({ kind: "stream", summary, params, item }) as const;

export const ghostApiMethods = {
  daemon: {
    status: request("The daemon's version, addresses, memory and load.", none, daemonStatusResult),
    doctor: request(
      "Looks at everything that must be in place and says what is missing and how to mend it.",
      none,
      daemonDoctorResult,
    ),
    logs: stream(
      "The latest log lines, then, if asked, new ones as they are written.",
      daemonLogsParams,
      daemonLogLine,
    ),
    stop: request("Drains open answers and stops the daemon; answers before it does.", none, daemonStopResult),
  },
  model: {
    list: request("All models of all providers, and the state of each provider.", modelListParams, modelListResult),
    pull: stream(
      "Downloads GGUF weights and registers them with the embedded engine.",
      modelPullParams,
      modelPullUpdate,
    ),
  },
  chat: {
    send: stream(
      "Sends one user message and streams the answer. `started` comes first; `finished` or `failed` last.",
      chatSendParams,
      chatUpdate,
    ),
  },
  completion: {
    create: stream(
      "Continues code at a cursor. `started` comes first; `finished` or `failed` last.",
      completionParams,
      completionUpdate,
    ),
  },
  session: {
    list: request("Stored sessions, the one changed last first.", sessionListParams, sessionListResult),
    get: request("One session with the messages of one of its threads.", sessionGetParams, sessionGetResult),
    watch: stream(
      "A session's history, then its changes as they happen, text by text.",
      sessionWatchParams,
      sessionWatchUpdate,
    ),
    delete: request("Deletes a session with all its threads.", sessionDeleteParams, sessionDeleteResult),
  },
  route: {
    explain: request("Which model would answer, and why; nothing is sent.", routeExplainParams, routeDecisionSchema),
  },
  usage: {
    summary: request("Answers and tokens by model.", usageSummaryParams, usageSummaryResult),
  },
  approval: {
    watch: stream("Open questions of GhostWarden, then every new one and every settlement.", none, approvalWatchUpdate),
    respond: request("Answers a question. Only the first answer counts.", approvalRespondParams, approvalRespondResult),
  },
  policy: {
    get: request("The verdict for each capability, and where it comes from.", none, policyGetResult),
  },
  ledger: {
    list: request("Effects: what was asked, decided and done, the latest first.", ledgerListParams, ledgerListResult),
  },
  key: {
    model: request("The model key and the base URLs, for `ghost env`.", none, keyModelResult),
    set: request("Stores a provider's key, for good. No call gives it back.", keySetParams, keySetResult),
    list: request("Which providers have a key, and where it comes from.", none, keyListResult),
    remove: request("Removes a stored key.", keyRemoveParams, keyRemoveResult),
    test: request("Asks the provider whether it takes its key, by one cheap call.", keyTestParams, keyTestResult),
  },
  settings: {
    get: request("All settings with their values and where each comes from.", none, settingsGetResult),
  },
} as const;

type MethodTable = typeof ghostApiMethods;
export type Namespace = keyof MethodTable;

interface RequestDefinition {
  readonly kind: "request";
  readonly summary: string;
  readonly params: z.ZodType;
  readonly result: z.ZodType;
}
interface StreamDefinition {
  readonly kind: "stream";
  readonly summary: string;
  readonly params: z.ZodType;
  readonly item: z.ZodType;
}
export type MethodDefinition = RequestDefinition | StreamDefinition;

type MethodOf<Definition> = Definition extends {
  kind: "request";
  params: infer P extends z.ZodType;
  result: infer R extends z.ZodType;
}
  ? (params: z.input<P>, signal: AbortSignal) => Promise<z.output<R>>
  : Definition extends { kind: "stream"; params: infer P extends z.ZodType; item: infer I extends z.ZodType }
    ? (params: z.input<P>, signal: AbortSignal) => AsyncIterable<z.output<I>>
    : never;

type HandlerOf<Definition, Caller> = Definition extends {
  kind: "request";
  params: infer P extends z.ZodType;
  result: infer R extends z.ZodType;
}
  ? (params: z.output<P>, signal: AbortSignal, caller: Caller) => Promise<z.input<R>>
  : Definition extends { kind: "stream"; params: infer P extends z.ZodType; item: infer I extends z.ZodType }
    ? (params: z.output<P>, signal: AbortSignal, caller: Caller) => AsyncIterable<z.input<I>>
    : never;

/** What a face calls. */
export type GhostApi = {
  readonly [N in Namespace]: { readonly [M in keyof MethodTable[N]]: MethodOf<MethodTable[N][M]> };
};

/** What the daemon implements: the same methods with validated parameters and the authenticated caller. */
export type GhostHandlers<Caller> = {
  readonly [N in Namespace]: { readonly [M in keyof MethodTable[N]]: HandlerOf<MethodTable[N][M], Caller> };
};

/** `daemon.status` → `ghost/daemon/status`. */
export function methodName(namespace: string, method: string): string {
  return `ghost/${namespace}/${method}`;
}

/** All methods by their JSON-RPC name. */
export const methodsByName: ReadonlyMap<
  string,
  MethodDefinition & { readonly namespace: string; readonly method: string }
> = new Map(
  Object.entries(ghostApiMethods).flatMap(([namespace, methods]) =>
    Object.entries(methods).map(([method, definition]) => [
      methodName(namespace, method),
      { ...definition, namespace, method },
    ]),
  ),
);

/**
 * Builds an object with one function per method of the table. `make` gets each method's name and definition; what it returns must have
 * that method's shape, which the two implementations' tests check method by method.
 */
export function mapMethods(make: (name: string, definition: MethodDefinition) => unknown): GhostApi {
  const api: Record<string, Record<string, unknown>> = {};
  for (const [name, definition] of methodsByName) {
    const methods = (api[definition.namespace] ??= {});
    methods[definition.method] = make(name, definition);
  }
  // oxlint-disable-next-line typescript/consistent-type-assertions -- the object was filled from the very table that the type derives from.
  return api as GhostApi;
}
