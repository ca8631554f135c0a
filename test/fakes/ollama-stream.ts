/** How the fake Ollama host streams one answer: NDJSON at the model's pace, a last line with counts and durations, or one of the faults. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { countPromptTokens, planAnswer, type Plan, renderPrompt, repetitionLimit } from "./ollama-answers.ts";
import type { FaultKind } from "./ollama-faults.ts";
import { nanoseconds, type ServedModel } from "./ollama-models.ts";
import type { FakeEvent, FakeTime, Lease } from "./ollama-scheduler.ts";
import { type Json, Refusal, type WireRequest } from "./ollama-wire.ts";

interface StreamJob {
  readonly request: WireRequest;
  readonly model: ServedModel;
  readonly lease: Lease;
  readonly startedMs: number;
  readonly time: FakeTime;
  readonly writer: LineWriter;
  readonly fault: (FaultKind & { readonly afterTokens: number }) | undefined;
  /** Resolves when a hung answer may go on. */
  readonly resumed: Promise<void>;
  readonly record: (event: Omit<FakeEvent, "atMs">) => void;
  readonly signal: AbortSignal;
}

/** Writes lines as they come, or keeps them for one object when the client does not stream. */
export class LineWriter {
  readonly #response: ServerResponse;
  readonly #streams: boolean;
  readonly #pieceBytes: number | undefined;
  readonly #signal: AbortSignal;
  readonly #kept: Json[] = [];

  constructor(response: ServerResponse, streams: boolean, pieceBytes: number | undefined, signal: AbortSignal) {
    this.#response = response;
    this.#streams = streams;
    this.#pieceBytes = pieceBytes;
    this.#signal = signal;
  }

  async line(body: Json): Promise<void> {
    if (this.#streams) await this.bytes(Buffer.from(`${JSON.stringify(body)}\n`));
    else this.#kept.push(body);
  }

  async bytes(bytes: Buffer): Promise<void> {
    if (!this.#response.headersSent) this.#response.writeHead(200, { "content-type": "application/x-ndjson" });
    const step = this.#pieceBytes ?? bytes.length;
    for (let at = 0; at < bytes.length; at += step) {
      this.#signal.throwIfAborted();
      const flowing = this.#response.write(bytes.subarray(at, at + step));
      // Pieces leave in turns of their own, so that they arrive as reads of their own.
      if (this.#pieceBytes !== undefined) await new Promise((resolve) => setImmediate(resolve));
      if (!flowing) await once(this.#response, "drain", { signal: this.#signal });
    }
  }

  error(message: string): void {
    if (this.#streams && this.#response.headersSent) this.#response.end(`${JSON.stringify({ error: message })}\n`);
    else if (this.#streams)
      this.#response
        .writeHead(200, { "content-type": "application/x-ndjson" })
        .end(`${JSON.stringify({ error: message })}\n`);
    else throw new Refusal(500, message);
  }

  reset(): void {
    this.#response.socket?.resetAndDestroy();
  }

  end(): void {
    if (this.#streams) {
      if (!this.#response.headersSent) this.#response.writeHead(200, { "content-type": "application/x-ndjson" });
      this.#response.end();
      return;
    }
    const body = merge(this.#kept);
    this.#response.writeHead(200, { "content-type": "application/json; charset=utf-8" }).end(JSON.stringify(body));
  }
}

export async function streamAnswer(job: StreamJob): Promise<void> {
  const { request, model, lease, time, writer, signal } = job;
  const { runner } = lease;
  const prompt = renderPrompt(request);
  const promptTokens = fitPrompt(job, prompt);
  const cachedTokens = countPromptTokens(commonPrefix(runner.cachedPrompt, prompt));
  runner.cachedPrompt = prompt;
  const promptStartMs = time.now();
  await time.sleep((Math.max(0, promptTokens - cachedTokens) / model.promptTokensPerSecond) * 1000, signal);
  const evalStartMs = time.now();
  const thinks = model.capabilities.includes("thinking") && request.think !== false && !request.raw;
  const plan = planAnswer(request, model.answer(request), runner.settings.numCtx, thinks);
  if (!(await sendTokens(job, plan, evalStartMs))) return;
  const calls =
    request.tools.length === 0
      ? []
      : plan.toolCalls.map((call, index) => toolCall(model, call.name, call.arguments, index));
  if (calls.length > 0 && model.toolStyle === "chunk") await writer.line(chunk(request, "", { tool_calls: calls }));
  const endMs = time.now();
  await writer.line({
    ...chunk(request, "", calls.length > 0 && model.toolStyle === "final" ? { tool_calls: calls } : {}),
    done: true,
    done_reason: plan.doneReason,
    ...(request.route === "generate" && !request.raw
      ? { context: Array.from({ length: promptTokens + plan.tokens.length }, (_, index) => index) }
      : {}),
    total_duration: nanoseconds(endMs - job.startedMs),
    load_duration: nanoseconds(lease.loadDurationMs),
    prompt_eval_count: promptTokens,
    prompt_eval_duration: nanoseconds(evalStartMs - promptStartMs),
    eval_count: plan.thinking.length + plan.tokens.length,
    eval_duration: nanoseconds(endMs - evalStartMs),
  });
  writer.end();
}

/** How many tokens of the prompt the model gets to see. A prompt too long is cut without a word, unless `truncate` is false. */
function fitPrompt(job: StreamJob, prompt: string): number {
  const { request, lease, model } = job;
  const { numCtx } = lease.runner.settings;
  const tokens = countPromptTokens(prompt);
  if (tokens <= numCtx) return tokens;
  if (!request.truncate) {
    // As llama-server words it; Ollama passes its JSON on as text.
    const message = `request (${tokens} tokens) exceeds the available context size (${numCtx} tokens), try increasing it`;
    const error = { code: 400, message, type: "exceed_context_size_error", n_prompt_tokens: tokens, n_ctx: numCtx };
    throw new Refusal(400, JSON.stringify({ error }));
  }
  job.record({ kind: "truncated", model: model.name });
  return numCtx;
}

/** False when the answer has ended otherwise. */
async function sendTokens(job: StreamJob, plan: Plan, startMs: number): Promise<boolean> {
  const { request, model, time, writer, signal } = job;
  const tokens = [
    ...plan.thinking.map((token) => ({ token, thinking: true })),
    ...plan.tokens.map((token) => ({ token, thinking: false })),
  ];
  const silentEnd =
    request.route === "generate" || model.toolStyle === "chunk"
      ? repetitionLimit(tokens.map(({ token }) => token))
      : Infinity;
  for (const [index, { token, thinking }] of tokens.entries()) {
    if (index === silentEnd) {
      writer.end();
      return false;
    }
    if (job.fault?.afterTokens === index && !(await misbehave(job, job.fault))) return false;
    // Against the start, so that late timers do not add up.
    await time.sleep(startMs + ((index + 1) * 1000) / model.tokensPerSecond - time.now(), signal);
    await writer.line(thinking ? chunk(request, "", { thinking: token }) : chunk(request, token, {}));
  }
  if (job.fault !== undefined && job.fault.afterTokens >= tokens.length) return misbehave(job, job.fault);
  return true;
}

/** Does what the fault says; true when the answer goes on afterwards. */
async function misbehave(job: StreamJob, fault: FaultKind): Promise<boolean> {
  const { writer, request, signal } = job;
  job.record({ kind: "fault", model: job.model.name, detail: fault.kind });
  switch (fault.kind) {
    case "errorLine":
      writer.error(fault.text ?? "an error was encountered while running the model: CUDA error");
      return false;
    case "end":
      writer.end();
      return false;
    case "halfLine":
      await writer.bytes(Buffer.from(`{"model":"${request.model}","message":{"role":"assist`));
      writer.end();
      return false;
    case "reset":
      writer.reset();
      return false;
    case "hang":
      await Promise.race([job.resumed, rejectOnAbort(signal)]);
      return true;
    case "invalidUtf8": {
      const line = Buffer.from(`${JSON.stringify(chunk(request, "<here>", {}))}\n`);
      line[line.indexOf("<here>")] = 0xff;
      await writer.bytes(line);
      return true;
    }
    case "garbage":
      await writer.bytes(Buffer.from("this is not JSON\n"));
      return true;
    default:
      throw new Refusal(500, `the fault ${fault.kind} has no meaning in mid-answer`, true);
  }
}

function chunk(request: WireRequest, content: string, more: Json): Json {
  const head = { model: request.model, created_at: new Date().toISOString() };
  if (request.route === "generate") return { ...head, response: content, ...more, done: false };
  return { ...head, message: { role: "assistant", content, ...more }, done: false };
}

function toolCall(model: ServedModel, name: string, args: Json, index: number): Json {
  return { ...(model.toolCallIds ? { id: `call_${index}_${name}` } : {}), function: { index, name, arguments: args } };
}

/** All chunks as the one object of an answer that was not streamed. */
function merge(lines: readonly Json[]): Json {
  const last = lines.at(-1) ?? {};
  const join = (read: (line: Json) => unknown) =>
    lines
      .map((line) => read(line))
      .filter((value) => typeof value === "string")
      .join("");
  if ("response" in last) {
    const thinking = join((line) => line["thinking"]);
    return { ...last, response: join((line) => line["response"]), ...(thinking === "" ? {} : { thinking }) };
  }
  const messages = lines
    .map((line) => line["message"])
    .filter((message) => typeof message === "object" && message !== null);
  const field = (name: string) => messages.map((message) => Reflect.get(message, name));
  const thinking = field("thinking")
    .filter((value) => typeof value === "string")
    .join("");
  const toolCalls = field("tool_calls").flatMap((value: unknown) => (Array.isArray(value) ? value : []));
  return {
    ...last,
    message: {
      role: "assistant",
      content: field("content")
        .filter((value) => typeof value === "string")
        .join(""),
      ...(thinking === "" ? {} : { thinking }),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls }),
    },
  };
}

function commonPrefix(a: string, b: string): string {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length += 1;
  return a.slice(0, length);
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
