/**
 * What of a request each kind of upstream can be told when it is not relayed as it came (docs/carriage.md is generated from this table). Nothing is lost
 * in silence: what changes the answer's meaning is refused before a token is spent, the rest is dropped and named in the `x-ghost-dropped` header. Pure.
 */
import { UserError } from "../base/errors.ts";
import type { ChatRequest, CompletionRequest } from "./stream.ts";

export const UPSTREAM_KINDS = [
  "openai-chat",
  "openai-responses",
  "anthropic-messages",
  "gemini",
  "ollama",
  "embedded",
  "copilot",
  "text-only",
] as const;
/** How an upstream is spoken to; `copilot` and `text-only` are other programs' agents, which take a prompt and give back text, and calls or none. */
export type UpstreamKind = (typeof UPSTREAM_KINDS)[number];

/** `mapped`: carried in another form. */
export type Carriage = "carried" | "mapped" | "dropped" | "refused";

export interface Feature {
  /** Its name in errors and in `x-ghost-dropped`. */
  readonly name: string;
  readonly isUsed: (request: ChatRequest) => boolean;
  readonly by: Readonly<Record<UpstreamKind, Carriage>>;
  readonly note?: string;
}

/** In the order of `UPSTREAM_KINDS`; one letter each: c(arried), m(apped), d(ropped), r(efused). */
function by(letters: string): Feature["by"] {
  const words: Readonly<Record<string, Carriage>> = { c: "carried", m: "mapped", d: "dropped", r: "refused" };
  const at = (index: number): Carriage => words[letters[index] ?? ""] ?? "refused";
  return {
    "openai-chat": at(0),
    "openai-responses": at(1),
    "anthropic-messages": at(2),
    gemini: at(3),
    ollama: at(4),
    embedded: at(5),
    copilot: at(6),
    "text-only": at(7),
  };
}

const hasSampling = (key: keyof ChatRequest["sampling"]) => (request: ChatRequest) =>
  request.sampling[key] !== undefined;
const hasTools = (kind: ChatRequest["tools"][number]["kind"]) => (request: ChatRequest) =>
  request.toolChoice !== "none" && request.tools.some((tool) => tool.kind === kind);

export const FEATURES: readonly Feature[] = [
  {
    name: "temperature",
    isUsed: hasSampling("temperature"),
    by: by("cmmcccdd"),
    note: "Left out, and named, for models that refuse it; above 1 it is 1 for Anthropic.",
  },
  { name: "top_p", isUsed: hasSampling("topP"), by: by("cmmcccdd"), note: "As temperature." },
  { name: "top_k", isUsed: hasSampling("topK"), by: by("ddmccddd") },
  { name: "seed", isUsed: hasSampling("seed"), by: by("cddcccdd") },
  { name: "frequency_penalty", isUsed: hasSampling("frequencyPenalty"), by: by("cddccddd") },
  { name: "presence_penalty", isUsed: hasSampling("presencePenalty"), by: by("cddccddd") },
  {
    name: "stop",
    isUsed: ({ output }) => output.stop.length > 0,
    by: by("cmccccmm"),
    note: "Where the upstream has none, the text is cut here and the upstream stopped.",
  },
  { name: "max_tokens", isUsed: ({ output }) => output.maxTokens !== undefined, by: by("cmccccdd") },
  { name: "tools", isUsed: hasTools("function"), by: by("cccccrcr") },
  {
    name: "custom tools",
    isUsed: hasTools("custom"),
    by: by("mcmmmrmr"),
    note: "As a function with one text argument, `input`.",
  },
  {
    name: "hosted tools",
    isUsed: hasTools("hosted"),
    by: by("dddddddd"),
    note: "Web search and its like run on the provider's side: only a relay carries them. Refused where one is forced.",
  },
  {
    name: "tool_choice",
    isUsed: ({ tools, toolChoice }) =>
      tools.length > 0 && (toolChoice === "required" || typeof toolChoice === "object"),
    by: by("ccmcmrrr"),
    note: "Newest Claude models take no forced choice: they are asked in words. Ollama is held to the schema of the one tool; refused where it is open which.",
  },
  {
    name: "parallel_tool_calls",
    isUsed: ({ tools, parallelToolCalls }) => tools.length > 0 && parallelToolCalls === false,
    by: by("ccmddddd"),
  },
  { name: "response_format json", isUsed: ({ output }) => output.format.kind === "json", by: by("cmmcccrr") },
  {
    name: "response_format json_schema",
    isUsed: ({ output }) => output.format.kind === "schema",
    by: by("ccmcccrr"),
    note: "Natively, by a forced tool, or by a grammar in the embedded engine.",
  },
  { name: "images", isUsed: ({ hasImages }) => hasImages === true, by: by("cccccrrr") },
  { name: "files", isUsed: ({ hasFiles }) => hasFiles === true, by: by("cccmrrrr") },
  {
    name: "reasoning",
    isUsed: ({ reasoning }) => reasoning?.effort !== undefined,
    by: by("cmmmmdmm"),
    note: "To the nearest level that the model takes.",
  },
  {
    name: "thinking budget",
    isUsed: ({ reasoning }) => reasoning?.effort === undefined && reasoning?.budgetTokens !== undefined,
    by: by("dmmmmddd"),
    note: "In tokens; as a level where the model takes levels.",
  },
];

/** Fields without a canonical form whose loss would change what the answer means. All others are dropped, and named. */
export const REFUSED_EXTRAS: Readonly<Record<string, string>> = {
  n: "only one choice per request",
  logprobs: "no log probabilities",
  top_logprobs: "no log probabilities",
  audio: "no audio",
  modalities: "text only",
  prediction: "no predicted outputs",
  background: "no background responses",
  conversation: "no conversations kept by the provider",
  prompt: "no prompt templates kept by the provider",
  functions: "tools, not the older `functions`",
  container: "no containers of the provider",
  mcp_servers: "no servers called by the provider",
  content_block: "no content blocks of this type",
  file_id: "no files kept by the provider",
  compaction: "only its maker can read that summary",
  "items of other tools": "nothing is known of such items",
  candidateCount: "only one answer per request",
  responseLogprobs: "no log probabilities",
  responseModalities: "text only",
  responseMimeType: "JSON and text only",
  cachedContent: "no content kept by the provider",
  continuationToken: "only its maker can go on from there",
  fileData: "no files kept by the provider, and none fetched: send them as `inlineData`",
  video: "no video",
  "parts of other kinds": "nothing is known of such parts",
};

/**
 * The names of what is lost on this way.
 * @throws UserError `capability_missing` naming the field whose loss would change the answer's meaning.
 */
export function carry(request: ChatRequest, upstream: UpstreamKind, modelRef: string): readonly string[] {
  const dropped: string[] = [];
  const refuse = (field: string, why: string): never => {
    throw new UserError("capability_missing", `${modelRef} cannot be asked with \`${field}\`: ${why}`, {
      details: { field, model: modelRef },
    });
  };
  for (const { name, isUsed, by: carriage } of FEATURES) {
    const how = carriage[upstream];
    if ((how !== "dropped" && how !== "refused") || !isUsed(request)) continue;
    if (how === "refused") refuse(name, "its server has nothing of the kind");
    dropped.push(name);
  }
  const { toolChoice } = request;
  if (typeof toolChoice === "object" && request.tools.some((t) => t.kind === "hosted" && t.name === toolChoice.name)) {
    refuse("tool_choice", `${toolChoice.name} runs on another provider's side`);
  }
  if (toolChoice === "required" && request.tools.length > 0 && request.tools.every(({ kind }) => kind === "hosted")) {
    refuse("tool_choice", "all its tools run on another provider's side");
  }
  for (const [field, value] of Object.entries(request.extras ?? {})) {
    if (isSameDialect(request, upstream)) continue;
    const why = REFUSED_EXTRAS[field];
    if (why !== undefined && asksForIt(field, value)) refuse(field, why);
    dropped.push(field);
  }
  return dropped;
}

/** Of text completions, likewise; the relay to a server of the same dialect carries all. */
const REFUSED_OF_COMPLETIONS: Readonly<Record<string, string>> = {
  echo: "the prompt is not given back",
  logprobs: "no log probabilities",
  best_of: "only one completion is made",
};

/** The names of what is lost of a text completion that is not relayed. @throws UserError `capability_missing`, as `carry` */
export function carryCompletion(request: CompletionRequest, modelRef: string): readonly string[] {
  const extras = Object.entries(request.extras ?? {});
  for (const [field, value] of extras) {
    const why = REFUSED_OF_COMPLETIONS[field];
    const isAsked = field === "best_of" ? value !== 1 : value !== false && value !== 0;
    if (why === undefined || !isAsked) continue;
    throw new UserError("capability_missing", `${modelRef} cannot be asked with \`${field}\`: ${why}`, {
      details: { field, model: modelRef },
    });
  }
  return extras.map(([field]) => field);
}

/** Then the body's writer passes them on as they are. */
export function isSameDialect(request: ChatRequest, upstream: UpstreamKind): boolean {
  return request.origin?.dialect === upstream;
}

/** `n: 1`, `logprobs: false` and `modalities: ["text"]` ask for what happens anyway. */
function asksForIt(field: string, value: unknown): boolean {
  if (value === null || value === undefined || value === false) return false;
  if (field === "n") return value !== 1;
  if (field === "top_logprobs") return value !== 0;
  if (field === "modalities") return JSON.stringify(value) !== '["text"]';
  return true;
}
