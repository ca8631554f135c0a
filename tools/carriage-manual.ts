/** Renders docs/carriage.md from the table in server/ghostllm/carriage.ts. */
import {
  type Carriage,
  FEATURES,
  REFUSED_EXTRAS,
  UPSTREAM_KINDS,
  type UpstreamKind,
} from "../server/ghostllm/carriage.ts";

const TITLES: Readonly<Record<UpstreamKind, string>> = {
  "openai-chat": "chat completions",
  "openai-responses": "Responses",
  "anthropic-messages": "Messages",
  gemini: "Gemini",
  ollama: "Ollama",
  embedded: "embedded",
  copilot: "Copilot",
  "text-only": "claude",
};
const SIGNS: Readonly<Record<Carriage, string>> = { carried: "✓", mapped: "≈", dropped: "–", refused: "✗" };

export function renderCarriageManual(): string {
  const lines = [
    "# What is carried",
    "",
    "<!-- Generated from server/ghostllm/carriage.ts by `npm run generate`; a test keeps both equal. -->",
    "",
    "A request whose client and model speak the same dialect is relayed as it came: byte for byte, but for the model's name. Every other one is translated,",
    "and this is what becomes of it. Nothing is lost in silence.",
    "",
    "✓ carried · ≈ carried in another form · – left out, and named in the answer's `x-ghost-dropped` header · ✗ refused before a token is spent",
    "(`capability_missing`, with the field); a virtual model goes to one that can.",
    "",
    `| asked for | ${UPSTREAM_KINDS.map((kind) => TITLES[kind]).join(" | ")} |`,
    `|---|${UPSTREAM_KINDS.map(() => ":-:").join("|")}|`,
    ...FEATURES.map(({ name, by }) => `| ${name} | ${UPSTREAM_KINDS.map((kind) => SIGNS[by[kind]]).join(" | ")} |`),
    "",
    "## Notes",
    "",
    ...FEATURES.flatMap(({ name, note }) => (note === undefined ? [] : [`- **${name}**: ${note}`])),
    "- **reasoning** that a model signed or encrypted goes back to its own provider only, unchanged and in its place; another model gets the conversation without it.",
    "",
    "## Other fields",
    "",
    "A field of the client's dialect that is not in the table is left out and named, unless its loss would change what the answer means. Those are refused:",
    "",
    "| field | why |",
    "|---|---|",
    ...Object.entries(REFUSED_EXTRAS).map(([field, why]) => `| \`${field}\` | ${why} |`),
  ];
  return `${lines.join("\n")}\n`;
}
