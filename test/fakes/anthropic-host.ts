/**
 * A fake of Anthropic's Messages API on a real socket: `/v1/messages` (JSON and SSE), `/v1/messages/count_tokens`, `/v1/models`.
 * 1. It holds requests against the rules that the real one enforces (`anthropic-host-rules.ts`); what breaks one is answered 400 and kept in `refusals`.
 * 2. A body with a field or shape that the API does not have is answered 400, as the real one does, and is a violation; so is a route without a model
 *    here, answered 501.
 * 3. Thinking comes back only as this host issued it, see `anthropic-host-thinking.ts`. A request that asks for no thinking gets none, whatever the
 *    script says, and where the display is `omitted` (the newest models' default) only its signature.
 */
import type { ServerResponse } from "node:http";
import { type ZodType, z } from "zod";
import { countTokensBody, type MessagesBody, messagesBody } from "./anthropic-host-body.ts";
import {
  anthropicBody,
  anthropicError,
  anthropicSteps,
  composeAnthropic,
  pingStep,
  unknownStep,
} from "./anthropic-host-frames.ts";
import { modelInfo } from "./anthropic-host-models.ts";
import { brokenRule } from "./anthropic-host-rules.ts";
import { IssuedThinking } from "./anthropic-host-thinking.ts";
import { countUsage, tokensOf } from "./cloud-frames.ts";
import { playCloudAnswer, sendCloudStatus } from "./cloud-player.ts";
import type { CloudRequest, CloudScript, CloudScriptSource, CloudStatus, ErrorWords } from "./cloud-script.ts";
import { firstProblem, type SchemaProblem } from "./cloud-schema.ts";
import {
  type Asked,
  type Exchange,
  type FakeHost,
  type ReceivedRequest,
  ScriptedHost,
  sendJson,
} from "./scripted-host.ts";

export interface AnthropicHostOptions {
  readonly port?: number;
  /** What `/v1/models` lists; others are answered 404. What a model accepts follows from its id, an unknown one is taken for one of the newest. */
  readonly models?: readonly string[];
  /** When given, requests without it get 401. */
  readonly apiKey?: string;
  readonly script?: CloudScriptSource;
  /** Pages of `/v1/models` are never longer, whatever `limit` asks for. */
  readonly maxPageSize?: number;
}

/** `baseUrl` is `http://127.0.0.1:PORT`, as the official client is given it: without `/v1`. */
export type AnthropicHost = FakeHost<CloudScript, CloudRequest>;

const DEFAULT_MODELS = [
  "claude-opus-5-5",
  "claude-sonnet-5-5",
  "claude-opus-4-8",
  "claude-sonnet-4-6",
  "claude-haiku-4-5",
];
/** The API's default and largest page. */
const PAGE_SIZE = 20;
const MAX_PAGE_SIZE = 1000;

export async function startAnthropicHost(options: AnthropicHostOptions = {}): Promise<AnthropicHost> {
  const thinking = new IssuedThinking();
  const host = new ScriptedHost<CloudScript, CloudRequest>({
    basePath: "",
    models: options.models ?? DEFAULT_MODELS,
    script: options.script ?? {},
    describe,
    admit: (asked, own) => admit(asked, { host: own, apiKey: options.apiKey }),
    serve: (exchange, own) => serve(exchange, { host: own, options, thinking }),
    unmodelledBody: (message) =>
      JSON.stringify(anthropicError({ message, type: "api_error" }, { status: 501, requestId: "req_fake" })),
  });
  return host.listen(options.port ?? 0);
}

interface Desk {
  readonly host: ScriptedHost<CloudScript, CloudRequest>;
  readonly options: AnthropicHostOptions;
  readonly thinking: IssuedThinking;
}

function admit(asked: Asked, how: { readonly host: Desk["host"]; readonly apiKey: string | undefined }): boolean {
  const { headers } = asked.request;
  const bearer = headers.authorization?.startsWith("Bearer ") ? headers.authorization.slice(7) : undefined;
  // Where both are sent, x-api-key is the one that counts.
  const key = headers["x-api-key"] ?? bearer;
  if (how.apiKey === undefined || key === how.apiKey) return true;
  const message = key === undefined ? "x-api-key header is required" : "invalid x-api-key";
  refuse(how.host, asked, { code: 401, message });
  return false;
}

async function serve(exchange: Exchange<CloudScript>, desk: Desk): Promise<void> {
  const { request, response } = exchange;
  const url = new URL(request.path, "http://fake");
  const beta = url.searchParams.get("beta");
  const isPlain = [...url.searchParams.keys()].every((key) => key === "beta") && (beta === null || beta === "true");
  const route = `${request.method} ${url.pathname}`;
  if (route === "GET /v1/models") listModels(exchange, desk, url.searchParams);
  else if (request.method === "GET" && url.pathname.startsWith("/v1/models/") && isPlain) {
    oneModel(exchange, desk, decodeURIComponent(url.pathname.slice("/v1/models/".length)));
  } else if (route === "POST /v1/messages" && isPlain) await answer(exchange, desk);
  else if (route === "POST /v1/messages/count_tokens" && isPlain) countTokens(exchange, desk);
  else desk.host.refuseUnmodelled(response, `no route ${request.method} ${request.path}`);
}

async function answer(exchange: Exchange<CloudScript>, desk: Desk): Promise<void> {
  const { request, script, response } = exchange;
  const body = parse(exchange, { desk, schema: messagesBody, isCount: false });
  if (body === undefined) return;
  const sign = (text: string) => desk.thinking.issue(body, text);
  const composed = composeAnthropic(script, { body, number: request.number, sign });
  await playCloudAnswer(exchange, {
    isStream: body.stream === true,
    steps: () => anthropicSteps(composed),
    body: () => anthropicBody(composed),
    tokens: tokensOf(composed.blocks),
    ping: pingStep(),
    unknown: unknownStep(),
    headers: headersOf(request),
    errorStep: (error) => ({
      event: "error",
      data: JSON.stringify(anthropicError(error, { status: 529, requestId: idOf(request) })),
      isToken: false,
    }),
    sendStatus: (status) => sendStatus(response, { request, status }),
  });
}

function countTokens(exchange: Exchange<CloudScript>, desk: Desk): void {
  const { request, script, response, isChosen } = exchange;
  const body = parse(exchange, { desk, schema: countTokensBody, isCount: true });
  if (body === undefined) return;
  if (script.status !== undefined && isChosen) {
    sendStatus(response, { request, status: script.status });
    return;
  }
  const promptText = JSON.stringify([body.system, body.tools, body.messages]);
  const counts = countUsage(script, { blocks: [], promptText });
  sendJson(response, JSON.stringify({ input_tokens: counts?.inputTokens ?? 0 }), 200, headersOf(request));
}

function listModels(exchange: Exchange<CloudScript>, desk: Desk, query: URLSearchParams): void {
  const { request, script, response, isChosen } = exchange;
  const problem = listProblem(request, query);
  if (script.status !== undefined && isChosen) sendStatus(response, { request, status: script.status });
  else if (problem !== undefined) refuse(desk.host, exchange, { code: 400, message: problem });
  else {
    const { models } = desk.host;
    const limit = Math.min(Number(query.get("limit") ?? PAGE_SIZE), desk.options.maxPageSize ?? MAX_PAGE_SIZE);
    const after = query.get("after_id");
    const before = query.get("before_id");
    const end = before === null ? undefined : models.indexOf(before);
    const start = end === undefined ? (after === null ? 0 : models.indexOf(after) + 1) : Math.max(0, end - limit);
    const page = models.slice(start, Math.min(start + limit, end ?? models.length));
    const hasMore = end === undefined ? start + page.length < models.length : start > 0;
    const ends = { first_id: page[0] ?? null, last_id: page.at(-1) ?? null };
    const body = { data: page.map(modelInfo), has_more: hasMore, ...ends };
    sendJson(response, JSON.stringify(body), 200, headersOf(request));
  }
}

function listProblem({ headers }: ReceivedRequest, query: URLSearchParams): string | undefined {
  if (headers["anthropic-version"] === undefined) return "anthropic-version: header is required";
  const known = ["limit", "after_id", "before_id", "beta", "lifecycle", "lifecycle[]"];
  const strange = [...query.keys()].find((key) => !known.includes(key));
  if (strange !== undefined) return `${strange}: Extra inputs are not permitted`;
  const limit = Number(query.get("limit") ?? PAGE_SIZE);
  return limit >= 1 && limit <= MAX_PAGE_SIZE ? undefined : `limit: Input should be between 1 and ${MAX_PAGE_SIZE}`;
}

function oneModel(exchange: Exchange<CloudScript>, desk: Desk, id: string): void {
  if (!desk.host.models.includes(id)) refuse(desk.host, exchange, { code: 404, message: `model: ${id}` });
  else sendJson(exchange.response, JSON.stringify(modelInfo(id)), 200, headersOf(exchange.request));
}

/** The body, where the real host would answer it; else it is answered here. */
function parse(
  exchange: Exchange<CloudScript>,
  how: { readonly desk: Desk; readonly schema: ZodType<MessagesBody>; readonly isCount: boolean },
): MessagesBody | undefined {
  const { host, thinking } = how.desk;
  const { body: raw, bodyText, headers, path } = exchange.request;
  const parsed = how.schema.safeParse(raw);
  if (!parsed.success) {
    const message = raw === undefined ? "The request body is not valid JSON" : wordsOf(firstProblem(parsed.error));
    host.violations.push(`${path}: ${message} in ${bodyText.slice(0, 500)}`);
    refuse(host, exchange, { code: 400, message });
    return undefined;
  }
  const body = parsed.data;
  if (!host.models.includes(body.model)) {
    refuse(host, exchange, { code: 404, message: `model: ${body.model}` });
    return undefined;
  }
  const version = headers["anthropic-version"]?.toString();
  const betas = (headers["anthropic-beta"]?.toString() ?? "").split(",").filter((flag) => flag.trim() !== "");
  const message = brokenRule({ body, version, betas, thinking, isCount: how.isCount });
  if (message === undefined) return body;
  refuse(host, exchange, { code: 400, message });
  return undefined;
}

/** `tools.0.nmae: Extra inputs are not permitted` */
function wordsOf({ kind, path, message }: SchemaProblem): string {
  const words = { unknown: "Extra inputs are not permitted", missing: "Field required", invalid: message };
  return `${path.map(String).join(".")}: ${words[kind]}`;
}

function refuse(host: Desk["host"], { request, response }: Asked, error: { readonly code: number } & ErrorWords): void {
  host.refusals.push(error.message ?? String(error.code));
  const body = anthropicError(error, { status: error.code, requestId: idOf(request) });
  sendJson(response, JSON.stringify(body), error.code, headersOf(request));
}

function sendStatus(
  response: ServerResponse,
  { request, status }: { readonly request: ReceivedRequest; readonly status: CloudStatus },
): void {
  const retry = status.retryAfterS === undefined ? {} : { "retry-after": String(status.retryAfterS) };
  const body = anthropicError(status, { status: status.code, requestId: idOf(request) });
  sendCloudStatus(response, status, { json: JSON.stringify(body), headers: { ...headersOf(request), ...retry } });
}

function idOf(request: ReceivedRequest): string {
  return `req_fake_${request.number}`;
}

function headersOf(request: ReceivedRequest): Readonly<Record<string, string>> {
  return { "request-id": idOf(request), "anthropic-organization-id": "org_fake" };
}

const looseBody = z.object({
  messages: z.array(
    z.object({
      role: z.string(),
      content: z.union([
        z.string(),
        z.array(
          z.object({
            type: z.string(),
            id: z.string().optional(),
            name: z.string().optional(),
            tool_use_id: z.string().optional(),
            content: z.unknown().optional(),
          }),
        ),
      ]),
    }),
  ),
});

function describe(request: ReceivedRequest): CloudRequest {
  const parsed = looseBody.safeParse(request.body);
  const messages = parsed.success ? parsed.data.messages : [];
  const blocks = messages.flatMap(({ content }) => (typeof content === "string" ? [] : content));
  const last = messages.slice(messages.findLastIndex(({ role }) => role === "assistant") + 1);
  const toolResults = last
    .flatMap(({ content }) => (typeof content === "string" ? [] : content))
    .filter(({ type }) => type === "tool_result")
    .map(({ tool_use_id: callId = "", content }) => ({
      callId,
      name: blocks.find(({ type, id }) => type === "tool_use" && id === callId)?.name,
      text: textOf(content),
    }));
  return { ...request, toolResults };
}

function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  const texts = z.array(z.object({ type: z.literal("text"), text: z.string() })).safeParse(content);
  return texts.success ? texts.data.map(({ text }) => text).join("") : JSON.stringify(content ?? "");
}
