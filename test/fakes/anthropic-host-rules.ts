/**
 * The rules by which Anthropic's Messages API refuses a well-formed body: each takes the request and says what is wrong with it, in the API's words.
 * Sources: the public API reference, its page of errors, and the SDK's types. The first rule that is broken answers.
 */
import { type ApiBlock, BETA_FIELDS, type MessagesBody } from "./anthropic-host-body.ts";
import { type ClaudeFacts, factsOf } from "./anthropic-host-models.ts";
import type { IssuedThinking } from "./anthropic-host-thinking.ts";

export interface RuleCase {
  readonly body: MessagesBody;
  readonly facts: ClaudeFacts;
  /** The `anthropic-version` header. */
  readonly version: string | undefined;
  /** The flags of the `anthropic-beta` header. */
  readonly betas: readonly string[];
  readonly thinking: IssuedThinking;
  /** Counting needs no `max_tokens`. */
  readonly isCount: boolean;
}

type Rule = (request: RuleCase) => string | undefined;

const NEW_VERSION = "2026-10-21";
const VERSIONS = ["2023-01-01", "2023-06-01", NEW_VERSION];
const CALL_ID = /^[a-zA-Z0-9_-]{1,64}$/;
const TOOL_NAME = /^[a-zA-Z0-9_-]{1,128}$/;
const MIN_BUDGET_TOKENS = 1024;
const MAX_CACHED_BLOCKS = 4;
const BINDING_BETA = "thinking-binding-controls-2026-08-01";

/** What the API would answer 400 to; undefined where it would answer. */
export function brokenRule(request: Omit<RuleCase, "facts">): string | undefined {
  const whole = { ...request, facts: factsOf(request.body.model) };
  for (const rule of rules) {
    const problem = rule(whole);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const rules: readonly Rule[] = [
  header,
  limits,
  sampling,
  thinkingConfig,
  effort,
  tools,
  toolChoice,
  turns,
  content,
  callsAndResults,
  lastTurn,
  cacheMarks,
  replayedThinking,
];

function header({ body, version, betas }: RuleCase): string | undefined {
  if (version === undefined) return "anthropic-version: header is required";
  if (!VERSIONS.includes(version)) return `anthropic-version: "${version}" is not a valid version`;
  const beta = BETA_FIELDS.find((name) => body[name] !== undefined);
  if (beta !== undefined && betas.length === 0) return `${beta}: Extra inputs are not permitted`;
  const binding = body.thinking !== undefined && "block_binding" in body.thinking && body.thinking.block_binding;
  if (binding && !betas.includes(BINDING_BETA)) return "thinking.block_binding: Extra inputs are not permitted";
  return undefined;
}

function limits({ body, facts, isCount }: RuleCase): string | undefined {
  if (!isCount && body.max_tokens === undefined) return "max_tokens: Field required";
  if ((body.max_tokens ?? 0) > facts.maxTokens) {
    return `max_tokens: ${body.max_tokens} > ${facts.maxTokens}, which is the maximum allowed number of output tokens for ${body.model}`;
  }
  if (body.stop_sequences?.some((stop) => stop.trim() === "") === true) {
    return "stop_sequences: each stop sequence must contain non-whitespace";
  }
  return undefined;
}

function sampling({ body, facts, version }: RuleCase): string | undefined {
  const asked = (["temperature", "top_p", "top_k"] as const).filter((name) => body[name] !== undefined);
  const [first] = asked;
  if (first === undefined) return undefined;
  if (version === NEW_VERSION) return `${first}: sampling parameters are not supported in API version ${version}`;
  if (!facts.takesSampling) return `\`${first}\` is not supported for this model.`;
  if (asked.includes("temperature") && asked.includes("top_p")) {
    return "`temperature` and `top_p` cannot both be specified for this model. Please use only one.";
  }
  const thinks = thinksFor({ body, facts });
  if (thinks && body.temperature !== undefined && body.temperature !== 1) {
    return "`temperature` may only be set to 1 when thinking is enabled.";
  }
  if (thinks && body.top_k !== undefined) return "`top_k` must be unset when thinking is enabled.";
  return undefined;
}

/** Whether the model thinks in its answer to `body`. */
export function thinksFor({ body, facts }: Pick<RuleCase, "body" | "facts">): boolean {
  return body.thinking === undefined ? facts.thinksByDefault : body.thinking.type !== "disabled";
}

function thinkingConfig({ body, facts }: RuleCase): string | undefined {
  const config = body.thinking;
  if (config === undefined) return undefined;
  if (!facts.thinking.includes(config.type)) {
    const instead = config.type === "enabled" ? " Use `thinking.type.adaptive` and `output_config.effort`." : "";
    return `thinking.type: "${config.type}" is not supported for this model.${instead}`;
  }
  if (config.type === "enabled") {
    if (config.budget_tokens < MIN_BUDGET_TOKENS) {
      return `thinking.enabled.budget_tokens: Input should be greater than or equal to ${MIN_BUDGET_TOKENS}`;
    }
    if (config.budget_tokens >= (body.max_tokens ?? Number.POSITIVE_INFINITY)) {
      return "`max_tokens` must be greater than `thinking.budget_tokens`.";
    }
  }
  const level = body.output_config?.effort;
  const isAbove = level === "xhigh" || level === "max";
  if (facts.offNeedsHighOrLess && isAbove && (config.type === "disabled" || config.type === "between_tools")) {
    return `thinking.type: "${config.type}" is not supported at effort "${level}" for this model.`;
  }
  return undefined;
}

function effort({ body, facts }: RuleCase): string | undefined {
  const level = body.output_config?.effort ?? undefined;
  if (level === undefined || facts.efforts.includes(level)) return undefined;
  return facts.efforts.length === 0
    ? "This model does not support the effort parameter."
    : `output_config.effort: "${level}" is not supported for this model.`;
}

function tools({ body }: RuleCase): string | undefined {
  const names = new Set<string>();
  for (const [index, tool] of (body.tools ?? []).entries()) {
    if (!("input_schema" in tool) || typeof tool.name !== "string") continue;
    if (!TOOL_NAME.test(tool.name)) {
      return `tools.${index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'`;
    }
    if (names.has(tool.name)) return "tools: Tool names must be unique.";
    names.add(tool.name);
  }
  return undefined;
}

function toolChoice({ body, facts }: RuleCase): string | undefined {
  const choice = body.tool_choice;
  if (choice === undefined) return undefined;
  if (body.tools === undefined || body.tools.length === 0) {
    return "tool_choice: tool_choice may only be specified while providing tools.";
  }
  if (choice.type !== "any" && choice.type !== "tool") return undefined;
  if (!facts.takesForcedTool) return `tool_choice.type: "${choice.type}" is not supported for this model.`;
  if (choice.type === "tool" && !body.tools.some((tool) => "name" in tool && tool.name === choice.name)) {
    return `Tool '${choice.name}' not found in provided tools`;
  }
  if (body.thinking?.type === "enabled") return "Thinking may not be enabled when tool_choice forces tool use.";
  return undefined;
}

function turns({ body, facts }: RuleCase): string | undefined {
  const [first] = body.messages;
  if (first === undefined) return "messages: at least one message is required";
  if (first.role !== "user") return 'messages: first message must use the "user" role';
  for (const [index, { role }] of body.messages.entries()) {
    if (role !== "system") continue;
    if (!facts.takesSystemTurns) return `messages.${index}.role: role 'system' is not supported on this model`;
    if (body.messages[index - 1]?.role !== "user") {
      return `messages.${index}: a \`system\` message must follow a \`user\` message`;
    }
  }
  return undefined;
}

function content(request: RuleCase): string | undefined {
  const { body } = request;
  if (Array.isArray(body.system) && body.system.some(({ text }) => text === "")) {
    return "system: text content blocks must be non-empty";
  }
  for (const [index, message] of body.messages.entries()) {
    const isFinalAssistant = index === body.messages.length - 1 && message.role === "assistant";
    if (message.content.length === 0 && !isFinalAssistant) {
      return `messages.${index}: all messages must have non-empty content except for the optional final assistant message`;
    }
    for (const [at, block] of blocksOf(message.content).entries()) {
      const problem = blockProblem(request, block, message.role);
      if (problem !== undefined) return `messages.${index}.content.${at}${problem}`;
    }
  }
  return undefined;
}

/** What is wrong with one block, to be put behind its path. */
function blockProblem({ version }: RuleCase, block: ApiBlock, role: string): string | undefined {
  switch (block.type) {
    case "text":
      if (block.text === "") return ": text content blocks must be non-empty";
      if (block.text.trim() === "") return ": text content blocks must contain non-whitespace text";
      if (version === NEW_VERSION && role === "user" && (block.citations ?? []).length > 0) {
        return ".text.citations: not supported in user messages";
      }
      return undefined;
    case "image":
      return role === "user" ? undefined : ": image blocks are only allowed in user messages";
    case "document":
      if (role === "user" || (role === "assistant" && version !== NEW_VERSION)) return undefined;
      return `: document blocks are not allowed in ${role} messages`;
    case "tool_use":
      if (role !== "assistant") return ": tool_use blocks are only allowed in assistant messages";
      if (!CALL_ID.test(block.id)) return ".tool_use.id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
      return TOOL_NAME.test(block.name)
        ? undefined
        : ".tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'";
    case "tool_result": {
      if (role !== "user") return ": tool_result blocks are only allowed in user messages";
      const parts = typeof block.content === "string" ? [] : (block.content ?? []);
      if (block.is_error === true && parts.some(({ type }) => type !== "text")) {
        return '.tool_result: all content must be type "text" if `is_error` is true';
      }
      return parts.some((part) => part.type === "text" && part.text === "")
        ? ".tool_result.content: text content blocks must be non-empty"
        : undefined;
    }
    case "thinking":
    case "redacted_thinking":
      return role === "assistant" ? undefined : `: ${block.type} blocks are only allowed in assistant messages`;
  }
}

/** Every call has its one result in the very next message, before anything else; every result its call in the message before. */
function callsAndResults({ body }: RuleCase): string | undefined {
  const seen = new Set<string>();
  let waiting: readonly string[] = [];
  for (const [index, message] of body.messages.entries()) {
    const blocks = blocksOf(message.content);
    const results = leadingResults(blocks);
    const missing = waiting.filter((id) => !results.includes(id));
    if (missing.length > 0) return withoutResults(index - 1, missing);
    for (const [at, block] of blocks.entries()) {
      if (block.type !== "tool_result") continue;
      if (!waiting.includes(block.tool_use_id)) {
        return `messages.${index}.content.${at}: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${block.tool_use_id}. Each \`tool_result\` block must have a corresponding \`tool_use\` block in the previous message.`;
      }
      if (results.indexOf(block.tool_use_id) !== at) {
        return `messages.${index}.content.${at}: each tool_use must have a single result. Found multiple \`tool_result\` blocks with id: ${block.tool_use_id}`;
      }
    }
    waiting = blocks.flatMap((block) => (block.type === "tool_use" ? [block.id] : []));
    const double = waiting.find((id, at) => seen.has(id) || waiting.indexOf(id) !== at);
    if (double !== undefined) return `messages.${index}: \`tool_use\` ids must be unique: ${double}`;
    for (const id of waiting) seen.add(id);
  }
  return waiting.length > 0 ? withoutResults(body.messages.length - 1, waiting) : undefined;
}

function withoutResults(index: number, ids: readonly string[]): string {
  return `messages.${index}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${ids.join(", ")}. Each \`tool_use\` block must have a corresponding \`tool_result\` block in the next message.`;
}

function leadingResults(blocks: readonly ApiBlock[]): readonly string[] {
  const ids: string[] = [];
  for (const block of blocks) {
    if (block.type !== "tool_result") break;
    ids.push(block.tool_use_id);
  }
  return ids;
}

function lastTurn(request: RuleCase): string | undefined {
  const { body, facts } = request;
  const last = body.messages.at(-1);
  if (last?.role === "assistant") {
    if (!facts.takesPrefill) {
      return "This model does not support assistant message prefill. The conversation must end with a user message.";
    }
    if (thinksFor(request)) return "messages: a final assistant message is not supported when thinking is enabled";
    const end = blocksOf(last.content).at(-1);
    if (end?.type === "text" && end.text !== end.text.trimEnd()) {
      return "messages: final assistant content cannot end with trailing whitespace";
    }
  }
  if (body.thinking?.type !== "enabled") return undefined;
  const index = body.messages.findLastIndex(({ role }) => role === "assistant");
  const [start, ...others] = blocksOf(body.messages[index]?.content ?? []);
  const calls = [start, ...others].some((block) => block?.type === "tool_use");
  if (!calls || start?.type === "thinking" || start?.type === "redacted_thinking") return undefined;
  return `messages.${index}.content.0.type: Expected \`thinking\` or \`redacted_thinking\`, but found \`${start?.type}\`. When \`thinking\` is enabled, a final \`assistant\` message must start with a thinking block (preceeding the lastmost set of \`tool_use\` and \`tool_result\` blocks).`;
}

interface CacheMark {
  readonly ttl?: "5m" | "1h" | undefined;
}

function cacheMarks({ body }: RuleCase): string | undefined {
  const own = (block: { readonly cache_control?: CacheMark | null | undefined }): readonly CacheMark[] =>
    block.cache_control ? [block.cache_control] : [];
  const inBlock = (block: ApiBlock): readonly CacheMark[] => {
    if (block.type === "thinking" || block.type === "redacted_thinking") return [];
    const inside = block.type === "tool_result" && Array.isArray(block.content) ? block.content.flatMap(own) : [];
    return [...inside, ...own(block)];
  };
  const marks = [
    ...(body.tools ?? []).flatMap(own),
    ...(Array.isArray(body.system) ? body.system.flatMap(own) : []),
    ...body.messages.flatMap((message) => blocksOf(message.content).flatMap(inBlock)),
    ...own(body),
  ];
  if (marks.length > MAX_CACHED_BLOCKS) {
    return `A maximum of ${MAX_CACHED_BLOCKS} blocks with cache_control may be provided. Found ${marks.length}.`;
  }
  const short = marks.findIndex(({ ttl }) => ttl !== "1h");
  return short >= 0 && marks.findLastIndex(({ ttl }) => ttl === "1h") > short
    ? "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"
    : undefined;
}

function replayedThinking({ body, thinking }: RuleCase): string | undefined {
  const binding = body.thinking !== undefined && "block_binding" in body.thinking ? body.thinking.block_binding : null;
  for (const [index, message] of body.messages.entries()) {
    for (const [at, block] of blocksOf(message.content).entries()) {
      if (block.type !== "thinking" && block.type !== "redacted_thinking") continue;
      const problem = thinking.check(body, block, index);
      const what = block.type === "thinking" ? "`signature` in `thinking`" : "`data` in `redacted_thinking`";
      const text = `messages.${index}.content.${at}: Invalid ${what} block`;
      if (problem === "unknown") return text;
      if (problem === "other-conversation" && binding?.prefix_mismatch_behavior !== "drop_block") {
        return `${text}. The block is bound to a different conversation.`;
      }
    }
  }
  return undefined;
}

function blocksOf(value: MessagesBody["messages"][number]["content"]): readonly ApiBlock[] {
  return typeof value === "string" ? [{ type: "text", text: value }] : value;
}
