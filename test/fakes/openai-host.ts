/**
 * A fake OpenAI-compatible host on a real socket: chat completions and completions (JSON and SSE), embeddings, models.
 * What it does not model, and what it records: see `scripted-host.ts`.
 * In tests: `startOpenAiHost(options)`. As a process of its own, for benchmarks: `node test/fakes/openai-host.ts --port 0 --models t16,wait`
 * runs the pre-rendered host of `openai-host-fast.ts` and prints `{"ready":true,"baseUrl":"…"}`.
 */
import type { ServerResponse } from "node:http";
import { parseArgs } from "node:util";
import type { ZodType } from "zod";
import { startFastHost } from "./openai-host-fast.ts";
import { embeddingsAnswer, errorBody } from "./openai-host-frames.ts";
import { playAnswer, sendStatus } from "./openai-host-player.ts";
import {
  type ChatBody,
  chatBody,
  type CompletionBody,
  completionBody,
  embeddingsBody,
  type Script,
} from "./openai-host-script.ts";
import {
  type Asked,
  type Exchange,
  type FakeHost,
  type ReceivedRequest,
  ScriptedHost,
  type SourceOf,
  sendJson,
} from "./scripted-host.ts";

export type { ReceivedRequest } from "./scripted-host.ts";

export interface OpenAiHostOptions {
  readonly port?: number;
  /** What `/v1/models` lists; other names are answered with 404 as OpenAI does. */
  readonly models?: readonly string[];
  /** When given, requests without it get 401. */
  readonly apiKey?: string;
  /** How to answer; see {@link OpenAiHost.play}. */
  readonly script?: ScriptSource;
  /** Body fields that are accepted beside OpenAI's own, for tests of what is passed through. */
  readonly extraFields?: readonly string[];
}

/** One script for all requests, or a choice by request. */
export type ScriptSource = SourceOf<Script, ReceivedRequest>;

export type OpenAiHost = FakeHost<Script>;

export async function startOpenAiHost(options: OpenAiHostOptions = {}): Promise<OpenAiHost> {
  const host = new ScriptedHost<Script>({
    basePath: "/v1",
    models: options.models ?? ["test-model"],
    script: options.script ?? {},
    describe: (request) => request,
    admit: (asked) => admit(asked, options.apiKey),
    serve: (exchange, own) => serve(exchange, { host: own, options }),
    unmodelledBody: (what) => errorBody({ message: what, type: "not_modelled", code: null }),
  });
  return host.listen(options.port ?? 0);
}

interface Desk {
  readonly host: ScriptedHost<Script>;
  readonly options: OpenAiHostOptions;
}

function admit({ request, response }: Asked, apiKey: string | undefined): boolean {
  if (apiKey === undefined || request.headers.authorization === `Bearer ${apiKey}`) return true;
  refuseWith(response, { code: 401, message: "Incorrect API key provided.", errorCode: "invalid_api_key" });
  return false;
}

async function serve(exchange: Exchange<Script>, desk: Desk): Promise<void> {
  const { request, response, script } = exchange;
  const route = `${request.method} ${request.path}`;
  if (route === "GET /v1/models") listModels(exchange, desk.host.models);
  else if (route === "POST /v1/embeddings") {
    const body = parse(exchange, desk, embeddingsBody);
    if (body === undefined) return;
    if (script.status !== undefined) sendStatus(response, script.status);
    else sendJson(response, embeddingsAnswer(body));
  } else if (route === "POST /v1/chat/completions") await answer(exchange, desk, chatBody);
  else if (route === "POST /v1/completions") await answer(exchange, desk, completionBody);
  else desk.host.refuseUnmodelled(response, `no route ${route}`);
}

function listModels({ response, script, isChosen }: Exchange<Script>, models: readonly string[]): void {
  if (script.status !== undefined && isChosen) {
    sendStatus(response, script.status);
    return;
  }
  const data = models.map((id) => ({ id, object: "model", created: 1_700_000_000, owned_by: "fake" }));
  sendJson(response, JSON.stringify({ object: "list", data }));
}

async function answer(
  exchange: Exchange<Script>,
  desk: Desk,
  schema: ZodType<ChatBody | CompletionBody>,
): Promise<void> {
  const body = parse(exchange, desk, schema);
  if (body === undefined) return;
  if (body.stream_options !== undefined && body.stream_options !== null && body.stream !== true) {
    const message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
    refuseWith(exchange.response, { code: 400, message });
    return;
  }
  await playAnswer(exchange, body);
}

function parse<Body extends { readonly model: string }>(
  exchange: Exchange<Script>,
  { host, options }: Desk,
  schema: ZodType<Body>,
): Body | undefined {
  const { request, response } = exchange;
  const parsed = schema.safeParse(withoutFields(request.body, options.extraFields ?? []));
  if (!parsed.success) {
    host.refuseUnmodelled(response, `${request.path}: ${parsed.error.message} in ${request.bodyText.slice(0, 500)}`);
    return undefined;
  }
  if (!host.models.includes(parsed.data.model)) {
    const message = `The model \`${parsed.data.model}\` does not exist or you do not have access to it.`;
    refuseWith(exchange.response, { code: 404, message, errorCode: "model_not_found" });
    return undefined;
  }
  return parsed.data;
}

function refuseWith(
  response: ServerResponse,
  error: { readonly code: number; readonly message: string; readonly errorCode?: string },
): void {
  sendStatus(response, { body: "json", type: "invalid_request_error", ...error });
}

function withoutFields(body: unknown, names: readonly string[]): unknown {
  if (typeof body !== "object" || body === null) return body;
  return Object.fromEntries(Object.entries(body).filter(([name]) => !names.includes(name)));
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "0" }, models: { type: "string" } } });
  const host = await startFastHost({ port: Number(values.port), models: (values.models ?? "t16").split(",") });
  process.stdout.write(`${JSON.stringify({ ready: true, baseUrl: host.baseUrl })}\n`);
}
