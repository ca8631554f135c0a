/**
 * The matrix of client dialects and upstreams: what is asked in each column, and which cells are no plain "works". The tests hold every cell to it, and
 * docs/dialects.md is generated from it.
 */
export const CLIENTS = ["chat completions", "Responses", "Messages", "Gemini", "Ollama"] as const;
export type ClientName = (typeof CLIENTS)[number];

export const UPSTREAMS = [
  "compatible",
  "OpenAI",
  "Azure",
  "xAI",
  "Anthropic",
  "Gemini",
  "Copilot",
  "Ollama",
  "embedded",
] as const;
export type UpstreamName = (typeof UPSTREAMS)[number];

export const CASES = ["plain", "stream", "tools", "parallel tools", "images", "schema", "error", "cut"] as const;
export type CaseName = (typeof CASES)[number];

/** `refused`: with a clear error before a token is spent. `none`: there is nothing of the kind that could happen. */
export type Cell = "works" | "refused" | "none";

/** The embedded engine calls no tools and sees no images, and nothing lies between it and us that could be cut or answer with an error. */
const EMBEDDED: Partial<Record<CaseName, Cell>> = {
  tools: "refused",
  "parallel tools": "refused",
  images: "refused",
  error: "none",
  cut: "none",
};

/** Copilot's runtime takes text and tools. */
const COPILOT: Partial<Record<CaseName, Cell>> = { images: "refused", schema: "refused" };

export function cellOf(_client: ClientName, upstream: UpstreamName, name: CaseName): Cell {
  const special = upstream === "embedded" ? EMBEDDED : upstream === "Copilot" ? COPILOT : {};
  return special[name] ?? "works";
}
