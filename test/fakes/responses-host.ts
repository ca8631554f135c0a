/**
 * A fake of the Responses API on a real socket, as OpenAI, Azure OpenAI (v1) and xAI have it: `/responses` (JSON and SSE), `/models`, `/embeddings`.
 * 1. It holds requests against the rules that the real ones enforce (`responses-host-rules.ts`); what breaks one is answered 400 (or 404) and kept in
 *    `refusals`.
 * 2. A body with a field or shape that the API does not have is answered 400, as the real ones do, and is a violation; so is a route without a model
 *    here, answered 501.
 * 3. `store` is honoured: what was not stored is not found. Encrypted reasoning comes back only as this host gave it out.
 * 4. Reasoning is in the answer where the model reasons at the effort that is asked; its text where a summary is asked, its encrypted content where
 *    `include` asks for it.
 */
import type { ServerResponse } from "node:http";
import { z } from "zod";
import { countUsage, tokensOf } from "./cloud-frames.ts";
import { playCloudAnswer, sendCloudStatus } from "./cloud-player.ts";
import { firstProblem, type SchemaProblem } from "./cloud-schema.ts";
import type { CloudRequest, CloudScript, CloudScriptSource, CloudStatus } from "./cloud-script.ts";
import { embeddingsAnswer } from "./openai-host-frames.ts";
import { embeddingsBody } from "./openai-host-script.ts";
import { type InputItem, type ResponsesBody, responsesBody } from "./responses-host-body.ts";
import { keyError, type ResponsesError, responsesError } from "./responses-host-errors.ts";
import {
  composeResponses,
  failedResponse,
  finishedResponse,
  inBandWords,
  outputOf,
  type ResponsesAnswer,
  responsesSteps,
  unknownResponsesStep,
} from "./responses-host-frames.ts";
import { ResponsesMemory } from "./responses-host-memory.ts";
import {
  DEFAULT_MODELS,
  openAiModel,
  type ResponsesFlavour,
  responsesFactsOf,
  xaiLanguageModel,
} from "./responses-host-models.ts";
import { brokenResponsesRule, isOfModel, itemsOf } from "./responses-host-rules.ts";
import {
  type Asked,
  type Exchange,
  type FakeHost,
  type ReceivedRequest,
  ScriptedHost,
  sendJson,
} from "./scripted-host.ts";

export interface ResponsesHostOptions {
  readonly port?: number;
  /** Default: `openai`. */
  readonly flavour?: ResponsesFlavour;
  /** What is served; others are answered 404. What a model accepts follows from its id. On Azure these are the names of deployments. */
  readonly models?: readonly string[];
  /** Azure: the model behind each deployment; `gpt-5.6-sol` where it is not said. `/models` lists these, never the deployments. */
  readonly deployments?: Readonly<Record<string, string>>;
  /** When given, requests without it are refused. Azure takes it as `api-key`, the others as `Authorization: Bearer`. */
  readonly apiKey?: string;
  /** Azure: a token that is taken as `Authorization: Bearer`. */
  readonly entraToken?: string;
  readonly script?: CloudScriptSource;
}

/** `baseUrl` is `http://127.0.0.1:PORT/v1`, on Azure `http://127.0.0.1:PORT/openai/v1`. */
export type ResponsesHost = FakeHost<CloudScript, CloudRequest>;

const DEFAULT_DEPLOYED = "gpt-5.6-sol";

export async function startResponsesHost(options: ResponsesHostOptions = {}): Promise<ResponsesHost> {
  const flavour = options.flavour ?? "openai";
  const memory = new ResponsesMemory();
  const host = new ScriptedHost<CloudScript, CloudRequest>({
    basePath: flavour === "azure" ? "/openai/v1" : "/v1",
    models: options.models ?? DEFAULT_MODELS[flavour],
    script: options.script ?? {},
    describe: (request) => describe(request, memory),
    admit: (asked, own) => admit(asked, { host: own, options, flavour, memory }),
    serve: (exchange, own) => serve(exchange, { host: own, options, flavour, memory }),
    unmodelledBody: (message) => responsesError(flavour, { status: 501, message, type: "not_modelled" }),
  });
  return host.listen(options.port ?? 0);
}

interface Desk {
  readonly host: ScriptedHost<CloudScript, CloudRequest>;
  readonly options: ResponsesHostOptions;
  readonly flavour: ResponsesFlavour;
  readonly memory: ResponsesMemory;
}

function admit(asked: Asked, desk: Desk): boolean {
  const { apiKey, entraToken } = desk.options;
  const { headers } = asked.request;
  const bearer = headers.authorization?.startsWith("Bearer ") ? headers.authorization.slice(7) : undefined;
  const key = desk.flavour === "azure" ? headers["api-key"]?.toString() : bearer;
  if (apiKey === undefined && entraToken === undefined) return true;
  if (key !== undefined && key === apiKey) return true;
  if (desk.flavour === "azure" && key === undefined && bearer !== undefined && bearer === entraToken) return true;
  refuse(desk, asked, keyError(desk.flavour, key));
  return false;
}

async function serve(exchange: Exchange<CloudScript>, desk: Desk): Promise<void> {
  const { request, response } = exchange;
  const url = new URL(request.path, "http://fake");
  const isPlain = url.search === "" || (desk.flavour === "azure" && url.search === "?api-version=preview");
  const base = desk.flavour === "azure" ? "/openai/v1/" : "/v1/";
  const path = isPlain && url.pathname.startsWith(base) ? url.pathname.slice(base.length) : undefined;
  const route = `${request.method} ${path}`;
  const [folder, id = "", ...rest] = (path ?? "").split("/");
  const isOne = id !== "" && rest.length === 0;
  if (route === "POST responses") await answer(exchange, desk);
  else if (route === "POST responses/input_tokens") countInput(exchange, desk);
  else if (folder === "responses" && isOne && request.method === "GET") retrieve(exchange, desk, id);
  else if (folder === "responses" && isOne && request.method === "DELETE") forget(exchange, desk, id);
  else if (route === "GET models") listModels(exchange, desk);
  else if (folder === "models" && isOne && request.method === "GET") oneModel(exchange, desk, decodeURIComponent(id));
  else if (route === "GET language-models" && desk.flavour === "xai") {
    const models = desk.host.models.map((model) => xaiLanguageModel(model));
    sendJson(response, JSON.stringify({ models }), 200, headersOf(request));
  } else if (route === "POST embeddings") embed(exchange, desk);
  else desk.host.refuseUnmodelled(response, `no route ${request.method} ${request.path}`);
}

async function answer(exchange: Exchange<CloudScript>, desk: Desk): Promise<void> {
  const { request, script, response } = exchange;
  const parsed = parse(exchange, desk);
  if (parsed === undefined) return;
  const { body, model, items, earlier } = parsed;
  const { flavour, memory } = desk;
  const facts = responsesFactsOf(model);
  const composed = composeResponses(script, { body, model, number: request.number, facts, flavour, memory });
  const isStream = body.stream === true;
  const store = () => {
    if (body.store === false) return;
    const all = [...earlier, ...items, ...outputOf(composed)];
    memory.store(composed.id, { body: finishedResponse(composed), items: all });
  };
  await playCloudAnswer(exchange, {
    isStream,
    steps: () => responsesSteps(composed, store),
    body: () => {
      store();
      return JSON.stringify(finishedResponse(composed));
    },
    tokens: tokensOf(composed.blocks),
    unknown: unknownResponsesStep(),
    headers: headersOf(request),
    errorStep: (error, how) => {
      const step = inBandError(composed, error, how);
      return { event: step.type, data: JSON.stringify(isStream ? step : step.whole), isToken: false };
    },
    sendStatus: (status) => sendStatus(response, desk, { request, status }),
  });
}

/** An error under status 200: an event of a stream (`whole` is not part of it), or what a whole answer is instead. */
function inBandError(
  composed: ResponsesAnswer,
  error: NonNullable<Parameters<typeof inBandWords>[0]>,
  how: { readonly as: "error" | "failed"; readonly framesSent: number },
): { readonly type: string; readonly whole: object; readonly toJSON: () => object } {
  const words = inBandWords(error);
  const failed = failedResponse(composed, error);
  const isFailed = how.as === "failed";
  const type = isFailed ? "response.failed" : "error";
  const fields = isFailed ? { response: failed } : { ...words, param: null };
  return {
    type,
    whole: isFailed ? failed : { error: { ...words, type: error.type ?? "server_error", param: null } },
    toJSON: () => ({ type, ...fields, sequence_number: how.framesSent }),
  };
}

function countInput(exchange: Exchange<CloudScript>, desk: Desk): void {
  const parsed = parse(exchange, desk);
  if (parsed === undefined) return;
  const { request, script, response, isChosen } = exchange;
  if (script.status !== undefined && isChosen) {
    sendStatus(response, desk, { request, status: script.status });
    return;
  }
  const promptText = JSON.stringify([parsed.body.instructions, parsed.items]);
  const counts = countUsage(script, { blocks: [], promptText });
  const body = { object: "response.input_tokens", input_tokens: counts?.inputTokens ?? 0 };
  sendJson(response, JSON.stringify(body), 200, headersOf(request));
}

function retrieve(exchange: Exchange<CloudScript>, desk: Desk, id: string): void {
  const stored = desk.memory.find(id);
  if (stored === undefined) refuse(desk, exchange, { status: 404, message: `Response with id '${id}' not found.` });
  else sendJson(exchange.response, JSON.stringify(stored.body), 200, headersOf(exchange.request));
}

function forget(exchange: Exchange<CloudScript>, desk: Desk, id: string): void {
  if (!desk.memory.forget(id)) {
    refuse(desk, exchange, { status: 404, message: `Response with id '${id}' not found.` });
    return;
  }
  const body = { id, object: "response.deleted", deleted: true };
  sendJson(exchange.response, JSON.stringify(body), 200, headersOf(exchange.request));
}

/** On Azure the models that are offered, not what is deployed of them. */
function listedModels({ host, options, flavour }: Desk): readonly string[] {
  return flavour === "azure" ? [...new Set(Object.values(options.deployments ?? {})), DEFAULT_DEPLOYED] : host.models;
}

function listModels(exchange: Exchange<CloudScript>, desk: Desk): void {
  const { request, script, response, isChosen } = exchange;
  if (script.status !== undefined && isChosen) {
    sendStatus(response, desk, { request, status: script.status });
    return;
  }
  const data = listedModels(desk).map((id) => openAiModel(id, desk.flavour));
  sendJson(response, JSON.stringify({ object: "list", data }), 200, headersOf(request));
}

function oneModel(exchange: Exchange<CloudScript>, desk: Desk, id: string): void {
  if (!listedModels(desk).includes(id)) refuse(desk, exchange, unknownModel(desk, id));
  else sendJson(exchange.response, JSON.stringify(openAiModel(id, desk.flavour)), 200, headersOf(exchange.request));
}

function embed(exchange: Exchange<CloudScript>, desk: Desk): void {
  const { request, script, response, isChosen } = exchange;
  const parsed = embeddingsBody.safeParse(request.body);
  if (!parsed.success) refuseShape(exchange, desk, firstProblem(parsed.error));
  else if (!desk.host.models.includes(parsed.data.model)) refuse(desk, exchange, unknownModel(desk, parsed.data.model));
  else if (script.status !== undefined && isChosen) sendStatus(response, desk, { request, status: script.status });
  else sendJson(response, embeddingsAnswer(parsed.data), 200, headersOf(request));
}

interface Parsed {
  readonly body: ResponsesBody;
  /** The model behind the name that was asked. */
  readonly model: string;
  readonly items: readonly InputItem[];
  readonly earlier: readonly InputItem[];
}

/** The body, where the real host would answer it; else it is answered here. */
function parse(exchange: Exchange<CloudScript>, desk: Desk): Parsed | undefined {
  const { flavour, memory, host, options } = desk;
  const parsed = responsesBody.safeParse(exchange.request.body);
  if (!parsed.success) {
    refuseShape(exchange, desk, firstProblem(parsed.error));
    return undefined;
  }
  const body = parsed.data;
  const asked = body.model;
  if (asked === undefined) {
    refuse(desk, exchange, { status: 400, message: "you must provide a model parameter" });
    return undefined;
  }
  if (!host.models.includes(asked)) {
    refuse(desk, exchange, unknownModel(desk, asked));
    return undefined;
  }
  const model = flavour === "azure" ? (options.deployments?.[asked] ?? DEFAULT_DEPLOYED) : asked;
  const items = itemsOf(body).map((item) =>
    item.type === "item_reference" ? (memory.findItem(item.id) ?? item) : item,
  );
  const earlier = memory.find(body.previous_response_id ?? "")?.items ?? [];
  const facts = responsesFactsOf(model);
  const problem = brokenResponsesRule({ body, model, facts, flavour, memory, items, earlier });
  if (problem === undefined) return { body, model, items, earlier };
  refuse(desk, exchange, { ...problem, status: problem.status ?? 400 });
  return undefined;
}

function unknownModel({ flavour }: Desk, model: string): ResponsesError {
  if (flavour === "azure") {
    const message =
      "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.";
    return { status: 404, code: "DeploymentNotFound", message };
  }
  const message = `The model \`${model}\` does not exist or you do not have access to it.`;
  return { status: 404, code: flavour === "xai" ? undefined : "model_not_found", message };
}

/** A body that the API has no place for: 400, and a violation. */
function refuseShape(exchange: Exchange<CloudScript>, desk: Desk, problem: SchemaProblem): void {
  const { request } = exchange;
  const param = problem.path.reduce<string>(
    (path, key) => (typeof key === "number" ? `${path}[${key}]` : path === "" ? String(key) : `${path}.${String(key)}`),
    "",
  );
  const words = {
    unknown: { message: `Unknown parameter: '${param}'.`, code: "unknown_parameter" },
    missing: { message: `Missing required parameter: '${param}'.`, code: "missing_required_parameter" },
    invalid: { message: `Invalid value for '${param}': ${problem.message}`, code: "invalid_value" },
  };
  const isJson = request.body !== undefined;
  const error = isJson
    ? words[problem.kind]
    : { message: "We could not parse the JSON body of your request.", code: null };
  desk.host.violations.push(`${request.path}: ${error.message} in ${request.bodyText.slice(0, 500)}`);
  refuse(desk, exchange, { status: 400, param: isJson ? param : null, ...error });
}

function refuse(desk: Desk, { request, response }: Asked, error: ResponsesError): void {
  desk.host.refusals.push(error.message ?? String(error.status));
  sendJson(response, responsesError(desk.flavour, error), error.status, headersOf(request));
}

function sendStatus(
  response: ServerResponse,
  { flavour }: Desk,
  { request, status }: { readonly request: ReceivedRequest; readonly status: CloudStatus },
): void {
  const retry = status.retryAfterS === undefined ? {} : { "retry-after": String(status.retryAfterS) };
  const error = { ...status, status: status.code, code: status.errorCode };
  const json = responsesError(flavour, error);
  sendCloudStatus(response, status, { json, headers: { ...headersOf(request), ...retry } });
}

function headersOf(request: ReceivedRequest): Readonly<Record<string, string>> {
  return { "x-request-id": `req_fake_${request.number}` };
}

function describe(request: ReceivedRequest, memory: ResponsesMemory): CloudRequest {
  const parsed = z
    .object({ input: responsesBody.shape.input, previous_response_id: z.string().nullable().optional() })
    .safeParse(request.body);
  if (!parsed.success) return { ...request, toolResults: [] };
  const items = itemsOf({ input: parsed.data.input });
  const all = [...(memory.find(parsed.data.previous_response_id ?? "")?.items ?? []), ...items];
  const names = new Map(
    all.flatMap((item) =>
      item.type === "function_call" || item.type === "custom_tool_call" ? [[item.call_id, item.name] as const] : [],
    ),
  );
  const toolResults = items.slice(items.findLastIndex((item) => isOfModel(item)) + 1).flatMap((item) => {
    if (item.type !== "function_call_output" && item.type !== "custom_tool_call_output") return [];
    const { call_id: callId, output } = item;
    const text =
      typeof output === "string"
        ? output
        : output.map((part) => (part.type === "input_text" ? part.text : JSON.stringify(part))).join("");
    return [{ callId, name: names.get(callId), text }];
  });
  return { ...request, toolResults };
}
