/** The bytes of the fake Responses host's answers: pure, from a script and a request to events or one JSON text. */
import { createHash } from "node:crypto";
import { argumentsOf, type Counts, countUsage, type Step, shorten } from "./cloud-frames.ts";
import type { AnswerBlock, CloudScript, ErrorWords, RefusalBlock, TextBlock, ToolCallBlock } from "./cloud-script.ts";
import type { ApiTool, InputItem, ResponsesBody } from "./responses-host-body.ts";
import { reasonsAt, type ResponsesFacts, type ResponsesFlavour } from "./responses-host-models.ts";
import type { ResponsesMemory } from "./responses-host-memory.ts";
import { itemsOf } from "./responses-host-rules.ts";

/** One item of the output. */
export type OutItem =
  | {
      readonly kind: "reasoning";
      readonly id: string;
      readonly deltas: readonly string[];
      readonly encrypted: string | undefined;
    }
  | { readonly kind: "message"; readonly id: string; readonly block: TextBlock | RefusalBlock }
  | {
      readonly kind: "call";
      readonly id: string;
      readonly callId: string;
      readonly block: ToolCallBlock;
      readonly namespace: string | undefined;
      readonly isCustom: boolean;
    };

/** What an answer is made of, once script and request are put together. */
export interface ResponsesAnswer {
  readonly id: string;
  readonly createdS: number;
  readonly model: string;
  readonly body: ResponsesBody;
  readonly flavour: ResponsesFlavour;
  readonly items: readonly OutItem[];
  readonly blocks: readonly AnswerBlock[];
  /** Why the answer is incomplete; undefined where it is not. */
  readonly incomplete: string | undefined;
  readonly counts: Counts | undefined;
  readonly costUsdTicks: number | undefined;
  /** The effort that the answer says it had. */
  readonly effort: string | null;
  readonly script: CloudScript;
}

export interface ResponsesRequest {
  readonly body: ResponsesBody;
  /** The name that the answer has for the model: on Azure not the one that was asked. */
  readonly model: string;
  readonly number: number;
  readonly facts: ResponsesFacts;
  readonly flavour: ResponsesFlavour;
  readonly memory: ResponsesMemory;
}

export function composeResponses(script: CloudScript, request: ResponsesRequest): ResponsesAnswer {
  const { body, number } = request;
  const { blocks, cutBy } = shorten(visible(script, request), { maxTokens: body.max_output_tokens ?? undefined });
  const counts = countUsage(script, { blocks, promptText: JSON.stringify([body.instructions, itemsOf(body)]) });
  const usage = script.usage === "never" ? undefined : script.usage;
  return {
    id: `resp_fake_${number}`,
    createdS: 1_780_000_000 + number,
    model: script.model ?? request.model,
    body,
    flavour: request.flavour,
    items: blocks.map((block, index) => itemOf(block, { request, index, script })),
    blocks,
    incomplete: script.finishReason ?? (cutBy === "length" ? "max_output_tokens" : undefined),
    counts,
    // What grok-4.7 costs: 2 and 6 dollars per million tokens.
    costUsdTicks: usage?.costUsdTicks ?? (counts && counts.inputTokens * 20_000 + counts.outputTokens * 60_000),
    effort: body.reasoning?.effort ?? (request.facts.reasons ? defaultEffort(request.flavour) : null),
    script,
  };
}

function defaultEffort(flavour: ResponsesFlavour): string {
  return flavour === "xai" ? "high" : "medium";
}

/** The script with its reasoning as this request is shown it: summarized, without a text, or not at all. */
function visible(script: CloudScript, { body, facts, flavour }: ResponsesRequest): CloudScript {
  if (script.blocks === undefined) return script;
  const reasons = reasonsAt(facts, body.reasoning?.effort);
  // xAI summarizes whatever is asked.
  const isShown = flavour === "xai" || (body.reasoning?.summary ?? body.reasoning?.generate_summary ?? null) !== null;
  const blocks = script.blocks.flatMap((block): readonly AnswerBlock[] => {
    if (block.kind !== "reasoning") return [block];
    if (!reasons) return [];
    return [isShown ? block : { ...block, deltas: [] }];
  });
  return { ...script, blocks };
}

function itemOf(
  block: AnswerBlock,
  how: { readonly request: ResponsesRequest; readonly index: number; readonly script: CloudScript },
): OutItem {
  const { body, number, memory, facts } = how.request;
  const place = `fake_${number}_${how.index}`;
  if (block.kind === "reasoning") {
    const id = `rs_${place}`;
    const isAsked = facts.alwaysEncrypts || body.include?.includes("reasoning.encrypted_content") === true;
    const isSigned = isAsked && (block.isSigned ?? true);
    const encrypted = isSigned ? memory.encrypt(id, block.deltas.join("")) : undefined;
    return { kind: "reasoning", id, deltas: block.deltas, encrypted };
  }
  if (block.kind !== "tool-call") return { kind: "message", id: `msg_${place}`, block };
  const { tool, namespace } = findTool(body.tools ?? [], block.name);
  const isCustom = tool?.type === "custom";
  const callId = block.id ?? `call_${place}`;
  return { kind: "call", id: `${isCustom ? "ctc" : "fc"}_${place}`, callId, block, namespace, isCustom };
}

function findTool(
  tools: readonly ApiTool[],
  name: string,
): { readonly tool: ApiTool | undefined; readonly namespace: string | undefined } {
  for (const tool of tools) {
    if (tool.type === "namespace") {
      const inside = tool.tools.find((each) => each.name === name);
      if (inside !== undefined) return { tool: inside, namespace: tool.name };
    } else if ("name" in tool && tool.name === name) return { tool, namespace: undefined };
  }
  return { tool: undefined, namespace: undefined };
}

/** All events of a healthy stream, in order; `onEnd` is called when the last one is due. */
export function* responsesSteps(answer: ResponsesAnswer, onEnd: () => void): Generator<Step> {
  let sequence = 0;
  for (const { type, fields, isToken } of eventsOf(answer)) {
    if (isEnd(type)) onEnd();
    const data = JSON.stringify({ type, ...fields, sequence_number: sequence });
    sequence += 1;
    yield { event: type, data, isToken };
  }
}

/** An event of a type that the API does not have. */
export function unknownResponsesStep(): Step {
  const type = "response.hint.delta";
  return { event: type, data: JSON.stringify({ type, output_index: 0, delta: "new in 2027" }), isToken: false };
}

interface Event {
  readonly type: string;
  readonly fields: object;
  readonly isToken: boolean;
}

function event(type: string, fields: object, { isToken } = { isToken: false }): Event {
  return { type, fields, isToken };
}

function isEnd(type: string): boolean {
  return type === "response.completed" || type === "response.incomplete";
}

function* eventsOf(answer: ResponsesAnswer): Generator<Event> {
  const started = { response: responseObject(answer, { status: "in_progress", output: [] }) };
  yield event("response.created", started);
  yield event("response.in_progress", started);
  const interleaves = answer.script.wire?.interleaveCalls === true;
  for (let index = 0; index < answer.items.length; ) {
    const run = interleaves ? callRun(answer.items, index) : [];
    const events = (run.length > 1 ? run : answer.items.slice(index, index + 1)).map((item, at) =>
      itemEvents(answer, item, index + at),
    );
    if (events.length > 1) yield* takeTurns(events);
    else for (const part of events[0] ?? []) yield* part;
    index += events.length;
  }
  const status = statusOf(answer);
  const isEmpty = answer.script.wire?.emptyFinalOutput === true;
  const output = isEmpty ? [] : outputOf(answer);
  yield event(`response.${status}`, { response: responseObject(answer, { status, output }) });
}

/** The calls that follow each other from `from` on. */
function callRun(items: readonly OutItem[], from: number): readonly OutItem[] {
  const end = items.findIndex((item, index) => index >= from && item.kind !== "call");
  return items.slice(from, end < 0 ? undefined : end);
}

/** One part of each in turn, until all are out. */
function* takeTurns(all: readonly (readonly (readonly Event[])[])[]): Generator<Event> {
  const longest = Math.max(...all.map((parts) => parts.length));
  for (let at = 0; at < longest; at += 1) for (const parts of all) yield* parts[at] ?? [];
}

/** The events of one item, in the parts between which another item's may come. */
function itemEvents(answer: ResponsesAnswer, item: OutItem, index: number): readonly (readonly Event[])[] {
  const place = { item_id: item.id, output_index: index };
  const added = event("response.output_item.added", { output_index: index, item: itemObject(answer, item, "added") });
  const done = event("response.output_item.done", { output_index: index, item: itemObject(answer, item, "done") });
  return [[added], ...innerEvents(answer, item, place).map((each) => [each]), [done]];
}

interface Place {
  readonly item_id: string;
  readonly output_index: number;
}

function innerEvents(answer: ResponsesAnswer, item: OutItem, place: Place): readonly Event[] {
  switch (item.kind) {
    case "reasoning":
      return item.deltas.length === 0 ? [] : summaryEvents(answer, item.deltas, place);
    case "message":
      return messageEvents(answer, item.block, place);
    case "call":
      return callEvents(answer, item, place);
  }
}

function summaryEvents(answer: ResponsesAnswer, deltas: readonly string[], place: Place): readonly Event[] {
  const where = { ...place, summary_index: 0 };
  const text = deltas.join("");
  const part = (words: string) => ({ ...where, part: { type: "summary_text", text: words } });
  return [
    event("response.reasoning_summary_part.added", part("")),
    ...deltas.map((delta) => deltaEvent(answer, "response.reasoning_summary_text.delta", { ...where, delta })),
    event("response.reasoning_summary_text.done", { ...where, text }),
    event("response.reasoning_summary_part.done", part(text)),
  ];
}

function messageEvents(answer: ResponsesAnswer, block: TextBlock | RefusalBlock, place: Place): readonly Event[] {
  const where = { ...place, content_index: 0 };
  const text = block.deltas.join("");
  const name = block.kind === "text" ? "output_text" : "refusal";
  const extra = block.kind === "text" ? { logprobs: [] } : {};
  const done = block.kind === "text" ? { text, logprobs: [] } : { refusal: text };
  return [
    event("response.content_part.added", { ...where, part: partOf(block.kind, "") }),
    ...block.deltas.map((delta) => deltaEvent(answer, `response.${name}.delta`, { ...where, delta, ...extra })),
    event(`response.${name}.done`, { ...where, ...done }),
    event("response.content_part.done", { ...where, part: partOf(block.kind, text) }),
  ];
}

function callEvents(answer: ResponsesAnswer, item: Extract<OutItem, { kind: "call" }>, place: Place): readonly Event[] {
  const name = item.isCustom ? "response.custom_tool_call_input" : "response.function_call_arguments";
  const text = argumentsText(item);
  const done = item.isCustom ? { input: text } : { name: item.block.name, arguments: text };
  return [
    ...item.block.arguments.map((delta) => deltaEvent(answer, `${name}.delta`, { ...place, delta })),
    event(`${name}.done`, { ...place, ...done }),
  ];
}

/** Deltas carry a padding of random length, unless the request does without. */
function deltaEvent(answer: ResponsesAnswer, type: string, fields: { readonly delta: string }): Event {
  const isPadded = answer.flavour !== "xai" && answer.body.stream_options?.include_obfuscation !== false;
  const hash = createHash("sha256").update(fields.delta).digest("base64url");
  const padding = isPadded ? { obfuscation: hash.slice(0, 1 + (fields.delta.length % 16)) } : {};
  return event(type, { ...fields, ...padding }, { isToken: true });
}

type Parts = Exclude<Extract<InputItem, { readonly role: string }>["content"], string>;

function partOf(kind: "text" | "refusal", text: string): Parts[number] {
  return kind === "text"
    ? { type: "output_text", annotations: [], logprobs: [], text }
    : { type: "refusal", refusal: text };
}

function statusOf(answer: ResponsesAnswer): "completed" | "incomplete" {
  return answer.incomplete === undefined ? "completed" : "incomplete";
}

/** The whole arguments; a call without pieces has an empty object, as the API has it. */
function argumentsText({ block, isCustom }: Extract<OutItem, { kind: "call" }>): string {
  const text = block.arguments.join("");
  return text === "" && !isCustom ? JSON.stringify(argumentsOf(block.arguments)) : text;
}

function itemObject(answer: ResponsesAnswer, item: OutItem, state: "added" | "done"): InputItem {
  const isDone = state === "done";
  const isLast = answer.items.at(-1) === item;
  const finished = isLast ? statusOf(answer) : "completed";
  const status: "in_progress" | "completed" | "incomplete" = isDone ? finished : "in_progress";
  switch (item.kind) {
    case "reasoning": {
      const text = item.deltas.join("");
      const encrypted = item.encrypted === undefined ? {} : { encrypted_content: item.encrypted };
      const summary = isDone && item.deltas.length > 0 ? [{ type: "summary_text" as const, text }] : [];
      return { id: item.id, type: "reasoning", summary, ...encrypted };
    }
    case "message": {
      const part = partOf(item.block.kind, item.block.deltas.join(""));
      const phase = item.block.kind === "text" && item.block.phase !== undefined ? { phase: item.block.phase } : {};
      return { id: item.id, type: "message", status, role: "assistant", content: isDone ? [part] : [], ...phase };
    }
    case "call": {
      const { id, callId: call_id, block, namespace, isCustom } = item;
      const named = { id, status, call_id, name: block.name, ...(namespace === undefined ? {} : { namespace }) };
      const text = isDone ? argumentsText(item) : "";
      return isCustom
        ? { ...named, type: "custom_tool_call", input: text }
        : { ...named, type: "function_call", arguments: text };
    }
  }
}

/** The items of the finished output: what a client sends back, too. */
export function outputOf(answer: ResponsesAnswer): readonly InputItem[] {
  return answer.items.map((item) => itemObject(answer, item, "done"));
}

/** The body of an answer that is not streamed, and what `GET /responses/ID` gives. */
export function finishedResponse(answer: ResponsesAnswer): object {
  return responseObject(answer, { status: statusOf(answer), output: outputOf(answer) });
}

/** An answer that failed, under status 200. */
export function failedResponse(answer: ResponsesAnswer, error: ErrorWords): object {
  return responseObject(answer, { status: "failed", output: [], error: inBandWords(error) });
}

/** The words of an error under status 200; without words it is an overload. */
export function inBandWords(error: ErrorWords): { readonly code: string; readonly message: string } {
  return {
    code: String(error.errorCode ?? error.type ?? "server_is_overloaded"),
    message: error.message ?? "Our servers are currently overloaded. Please try again later.",
  };
}

function responseObject(
  answer: ResponsesAnswer,
  now: { readonly status: string; readonly output: readonly InputItem[]; readonly error?: object },
): object {
  const { body, script } = answer;
  const isOver = now.status !== "in_progress";
  const isIncomplete = isOver && now.status === "incomplete";
  return {
    id: answer.id,
    object: "response",
    created_at: answer.createdS,
    status: now.status,
    background: false,
    completed_at: now.status === "completed" ? answer.createdS + 1 : null,
    error: now.error ?? null,
    frequency_penalty: 0,
    incomplete_details: isIncomplete ? { reason: answer.incomplete } : null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    metadata: body.metadata ?? {},
    model: answer.model,
    output: now.output,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    presence_penalty: 0,
    previous_response_id: body.previous_response_id ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
    reasoning: { effort: answer.effort, summary: body.reasoning?.summary ?? null },
    safety_identifier: body.safety_identifier ?? null,
    service_tier: isOver ? (script.serviceTier ?? "default") : (body.service_tier ?? "auto"),
    store: body.store ?? true,
    temperature: body.temperature ?? 1,
    text: { format: body.text?.format ?? { type: "text" }, verbosity: body.text?.verbosity ?? "medium" },
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_logprobs: body.top_logprobs ?? 0,
    top_p: body.top_p ?? 1,
    truncation: body.truncation ?? "disabled",
    usage: isOver && now.status !== "failed" ? usageOf(answer) : null,
    user: body.user ?? null,
    ...(answer.flavour === "xai" ? {} : { access_programs: null }),
  };
}

function usageOf({ counts, flavour, costUsdTicks }: ResponsesAnswer): object | null {
  if (counts === undefined) return null;
  const cost = flavour === "xai" ? { cost_in_usd_ticks: costUsdTicks, num_sources_used: 0 } : {};
  return {
    input_tokens: counts.inputTokens,
    input_tokens_details: { cached_tokens: counts.cachedTokens, cache_write_tokens: counts.cacheWriteTokens },
    output_tokens: counts.outputTokens,
    output_tokens_details: { reasoning_tokens: counts.reasoningTokens },
    total_tokens: counts.inputTokens + counts.outputTokens,
    ...cost,
  };
}
