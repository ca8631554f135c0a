/**
 * A fake of Google's Gemini API on a real socket: `:streamGenerateContent?alt=sse`, `:generateContent`, `:countTokens`, `:batchEmbedContents`, `/models`, under `/v1beta` and,
 * as the official client asks from its version 3 on, under `/v1`.
 * 1. It holds requests against the rules that the real one enforces (`gemini-host-rules.ts`); what breaks one is answered 400 and kept in `refusals`.
 * 2. A body with a field or shape that the API does not have is answered 400, as the real one does, and is a violation; so is a key in the URL, which
 *    gets logged, and a route without a model here, answered 501.
 * 3. Signatures and continuation tokens come back only as this host gave them out, see `gemini-host-memory.ts`.
 * 4. Thoughts are in the answer where `includeThoughts` asks for them.
 */
import type { ServerResponse } from "node:http";
import { z } from "zod";
import { countUsage } from "./cloud-frames.ts";
import { playCloudAnswer, sendCloudStatus } from "./cloud-player.ts";
import { firstProblem, type SchemaProblem } from "./cloud-schema.ts";
import type { CloudRequest, CloudScript, CloudScriptSource, CloudStatus, ErrorWords } from "./cloud-script.ts";
import { type GenerateBody, geminiCountBody, geminiEmbedBody, generateBody } from "./gemini-host-body.ts";
import {
  composeGemini,
  geminiBody,
  geminiError,
  geminiSteps,
  geminiTokens,
  unknownGeminiStep,
} from "./gemini-host-frames.ts";
import { GeminiMemory } from "./gemini-host-memory.ts";
import { geminiModel } from "./gemini-host-models.ts";
import { brokenGeminiRule } from "./gemini-host-rules.ts";
import {
  type Asked,
  type Exchange,
  type FakeHost,
  type ReceivedRequest,
  ScriptedHost,
  sendJson,
} from "./scripted-host.ts";

export interface GeminiHostOptions {
  readonly port?: number;
  /** What `/v1beta/models` lists; others are answered 404. What a model accepts follows from its id, an unknown one is taken for one of the newest. */
  readonly models?: readonly string[];
  /** When given, requests without it in `x-goog-api-key` are refused. */
  readonly apiKey?: string;
  readonly script?: CloudScriptSource;
  /** Pages of `/v1beta/models` are never longer, whatever `pageSize` asks for. */
  readonly maxPageSize?: number;
}

/** `baseUrl` is `http://127.0.0.1:PORT`, as the official client is given it: without `/v1beta` or `/v1`. */
export type GeminiHost = FakeHost<CloudScript, CloudRequest>;

const DEFAULT_MODELS = ["gemini-4-argon", "gemini-3.8-flash", "gemini-3.1-pro-preview", "gemini-2.5-pro"];
/** The API's default and largest page. */
const PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1000;
/** Texts in one batch. */
const MAX_EMBEDDED = 100;

export async function startGeminiHost(options: GeminiHostOptions = {}): Promise<GeminiHost> {
  const memory = new GeminiMemory();
  const host = new ScriptedHost<CloudScript, CloudRequest>({
    basePath: "",
    models: options.models ?? DEFAULT_MODELS,
    script: options.script ?? {},
    describe,
    admit: (asked, own) => admit(asked, { host: own, options, memory }),
    serve: (exchange, own) => serve(exchange, { host: own, options, memory }),
    unmodelledBody: (message) => JSON.stringify(geminiError({ message }, { status: 501 })),
  });
  return host.listen(options.port ?? 0);
}

interface Desk {
  readonly host: ScriptedHost<CloudScript, CloudRequest>;
  readonly options: GeminiHostOptions;
  readonly memory: GeminiMemory;
}

function admit(asked: Asked, desk: Desk): boolean {
  const { request, response } = asked;
  if (new URL(request.path, "http://fake").searchParams.has("key")) {
    desk.host.refuseUnmodelled(response, "a key in the URL");
    return false;
  }
  const key = request.headers["x-goog-api-key"];
  const { apiKey } = desk.options;
  if (apiKey === undefined || key === apiKey) return true;
  if (key === undefined) {
    const message =
      "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.";
    refuse(desk, asked, { code: 403, message });
    return false;
  }
  const reason = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    reason: "API_KEY_INVALID",
    domain: "googleapis.com",
    metadata: { service: "generativelanguage.googleapis.com" },
  };
  refuse(desk, asked, {
    code: 400,
    message: "API key not valid. Please pass a valid API key.",
    details: [reason],
  });
  return false;
}

async function serve(exchange: Exchange<CloudScript>, desk: Desk): Promise<void> {
  const { request, response } = exchange;
  const url = new URL(request.path, "http://fake");
  const path = decodeURIComponent(url.pathname);
  const [, model = "", method = ""] = /^\/v1(?:beta)?\/models\/([^:]+)(?::(\w+))?$/.exec(path) ?? [];
  const isPost = request.method === "POST" && model !== "";
  if (request.method === "GET" && (path === "/v1beta/models" || path === "/v1/models"))
    listModels(exchange, desk, url.searchParams);
  else if (request.method === "GET" && model !== "" && method === "" && url.search === "") {
    if (isKnown(exchange, desk, { model, method: "generateContent" })) {
      sendJson(response, JSON.stringify(geminiModel(model)));
    }
  } else if (isPost && method === "streamGenerateContent" && url.search === "?alt=sse") {
    await answer(exchange, desk, { model, isStream: true });
  } else if (isPost && method === "generateContent" && url.search === "") {
    await answer(exchange, desk, { model, isStream: false });
  } else if (isPost && method === "countTokens" && url.search === "") countTokens(exchange, desk, model);
  else if (isPost && method === "batchEmbedContents" && url.search === "") embed(exchange, desk, model);
  else desk.host.refuseUnmodelled(response, `no route ${request.method} ${request.path}`);
}

async function answer(
  exchange: Exchange<CloudScript>,
  desk: Desk,
  { model, isStream }: { readonly model: string; readonly isStream: boolean },
): Promise<void> {
  const { request, script, response } = exchange;
  const method = isStream ? "streamGenerateContent" : "generateContent";
  if (!isKnown(exchange, desk, { model, method })) return;
  const parsed = generateBody.safeParse(request.body);
  if (!parsed.success) {
    refuseShape(exchange, desk, firstProblem(parsed.error));
    return;
  }
  const body = parsed.data;
  if (!isAllowed(exchange, desk, { body, model })) return;
  const composed = composeGemini(script, { body, model, number: request.number, memory: desk.memory });
  await playCloudAnswer(exchange, {
    isStream,
    steps: () => geminiSteps(composed),
    body: () => geminiBody(composed),
    tokens: geminiTokens(composed),
    wire: { lineEnd: "\r\n" },
    unknown: unknownGeminiStep(),
    headers: {},
    errorStep: (error, { as }) => ({
      event: undefined,
      data: JSON.stringify(geminiError(error, { status: 503 })),
      isToken: false,
      isBare: as === "failed",
    }),
    sendStatus: (status) => sendStatus(response, status),
  });
}

function countTokens(exchange: Exchange<CloudScript>, desk: Desk, model: string): void {
  const { request, script, response, isChosen } = exchange;
  if (!isKnown(exchange, desk, { model, method: "countTokens" })) return;
  const parsed = geminiCountBody.safeParse(request.body);
  if (!parsed.success) {
    refuseShape(exchange, desk, firstProblem(parsed.error));
    return;
  }
  const body = parsed.data.generateContentRequest ?? { contents: parsed.data.contents };
  if (!isAllowed(exchange, desk, { body, model })) return;
  if (script.status !== undefined && isChosen) {
    sendStatus(response, script.status);
    return;
  }
  const counts = countUsage(script, { blocks: [], promptText: JSON.stringify(body) });
  const totalTokens = counts?.inputTokens ?? 0;
  const details = { promptTokensDetails: [{ modality: "TEXT", tokenCount: totalTokens }] };
  sendJson(response, JSON.stringify({ totalTokens, ...details }));
}

/** Vectors of two numbers that tell the texts apart: their length and their first character. */
function embed(exchange: Exchange<CloudScript>, desk: Desk, model: string): void {
  const { request, script, response, isChosen } = exchange;
  if (!isKnown(exchange, desk, { model, method: "batchEmbedContents" })) return;
  const parsed = geminiEmbedBody.safeParse(request.body);
  if (!parsed.success) {
    refuseShape(exchange, desk, firstProblem(parsed.error));
    return;
  }
  const { requests } = parsed.data;
  if (requests.length > MAX_EMBEDDED || requests.some((each) => each.model !== `models/${model}`)) {
    const message = `* BatchEmbedContentsRequest.requests: at most ${MAX_EMBEDDED} requests can be in one batch, all of the same model\n`;
    refuse(desk, exchange, { code: 400, message });
    return;
  }
  if (script.status !== undefined && isChosen) {
    sendStatus(response, script.status);
    return;
  }
  const texts = requests.map(({ content }) => (content.parts ?? []).map(({ text = "" }) => text).join(""));
  sendJson(
    response,
    JSON.stringify({ embeddings: texts.map((text) => ({ values: [text.length, text.codePointAt(0) ?? 0] })) }),
  );
}

function listModels(exchange: Exchange<CloudScript>, desk: Desk, query: URLSearchParams): void {
  const { script, response, isChosen } = exchange;
  if (script.status !== undefined && isChosen) {
    sendStatus(response, script.status);
    return;
  }
  const strange = [...query.keys()].find((key) => key !== "pageSize" && key !== "pageToken");
  const { models } = desk.host;
  const size = Math.min(Number(query.get("pageSize") ?? PAGE_SIZE), desk.options.maxPageSize ?? MAX_PAGE_SIZE);
  const token = query.get("pageToken");
  const start = token === null ? 0 : models.findIndex((model) => pageToken(model) === token);
  if (strange !== undefined) {
    const message = `Invalid JSON payload received. Unknown name "${strange}": Cannot bind query parameter.`;
    desk.host.violations.push(message);
    refuse(desk, exchange, { code: 400, message });
  } else if (start < 0) {
    refuse(desk, exchange, { code: 400, message: "Invalid page token." });
  } else {
    const next = models[start + size];
    const more = next === undefined ? {} : { nextPageToken: pageToken(next) };
    const page = models.slice(start, start + size).map((model) => geminiModel(model));
    sendJson(response, JSON.stringify({ models: page, ...more }));
  }
}

/** The token of the page that begins with this model. */
function pageToken(model: string): string {
  return Buffer.from(`page:${model}`).toString("base64");
}

function isKnown(
  exchange: Exchange<CloudScript>,
  desk: Desk,
  { model, method }: { readonly model: string; readonly method: string },
): boolean {
  if (desk.host.models.includes(model)) return true;
  const message = `models/${model} is not found for API version v1beta, or is not supported for ${method}. Call ListModels to see the list of available models and their supported methods.`;
  refuse(desk, exchange, { code: 404, message });
  return false;
}

function isAllowed(
  exchange: Exchange<CloudScript>,
  desk: Desk,
  { body, model }: { readonly body: GenerateBody; readonly model: string },
): boolean {
  const message = brokenGeminiRule({ body, model, memory: desk.memory });
  if (message === undefined) return true;
  refuse(desk, exchange, { code: 400, message });
  return false;
}

/** A body that the API has no place for: 400, and a violation. */
function refuseShape(exchange: Exchange<CloudScript>, desk: Desk, problem: SchemaProblem): void {
  const { request } = exchange;
  const name = String(problem.path.at(-1) ?? "");
  const place = problem.path
    .slice(0, -1)
    .reduce<string>(
      (path, key) =>
        typeof key === "number" ? `${path}[${key}]` : path === "" ? String(key) : `${path}.${String(key)}`,
      "",
    );
  const at = place === "" ? "" : ` at '${place}'`;
  const words =
    problem.kind === "unknown"
      ? `Unknown name "${name}"${at}: Cannot find field.`
      : `Invalid value at '${place === "" ? name : `${place}.${name}`}': ${problem.message}`;
  const message = `Invalid JSON payload received. ${request.body === undefined ? "Unexpected token." : words}`;
  desk.host.violations.push(`${request.path}: ${message} in ${request.bodyText.slice(0, 500)}`);
  const fields = [{ description: message, ...(place === "" ? {} : { field: place }) }];
  const details = [{ "@type": "type.googleapis.com/google.rpc.BadRequest", fieldViolations: fields }];
  refuse(desk, exchange, { code: 400, message, details });
}

function refuse(
  desk: Desk,
  { response }: Asked,
  error: ErrorWords & { readonly code: number; readonly details?: readonly object[] },
): void {
  desk.host.refusals.push(error.message ?? String(error.code));
  const body = geminiError(error, { status: error.code, details: error.details ?? [] });
  sendJson(response, JSON.stringify(body), error.code);
}

function sendStatus(response: ServerResponse, status: CloudStatus): void {
  const { retryAfterS } = status;
  const retry = { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: `${retryAfterS}s` };
  const body = geminiError(status, { status: status.code, details: retryAfterS === undefined ? [] : [retry] });
  sendCloudStatus(response, status, { json: JSON.stringify(body), headers: {} });
}

const looseBody = z.object({
  contents: z.array(
    z.object({
      role: z.string().optional(),
      parts: z.array(
        z.object({
          functionResponse: z
            .object({ id: z.string().optional(), name: z.string(), response: z.record(z.string(), z.unknown()) })
            .optional(),
        }),
      ),
    }),
  ),
});

function describe(request: ReceivedRequest): CloudRequest {
  const parsed = looseBody.safeParse(request.body);
  const contents = parsed.success ? parsed.data.contents : [];
  const toolResults = contents
    .slice(contents.findLastIndex(({ role }) => role === "model") + 1)
    .flatMap(({ parts }) => parts)
    .flatMap(({ functionResponse }) => (functionResponse === undefined ? [] : [functionResponse]))
    .map(({ id = "", name, response }) => {
      const value = response["output"] ?? response["error"] ?? response;
      return { callId: id, name, text: typeof value === "string" ? value : JSON.stringify(value) };
    });
  return { ...request, toolResults };
}
