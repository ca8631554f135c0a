/** The coding agents that are driven, each by the settings of its own page in docs/clients. */
export interface Agent {
  readonly name: string;
  /** In docs/clients, without `.md`. */
  readonly page: string;
  readonly program: string;
  /** What a run without a person and without a network needs beyond the page. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Changes the files that the page asks for. */
  readonly edit?: (text: string) => string;
  /** Uses these of the page's shell blocks only, by what is in them. */
  readonly only?: RegExp;
}

const replaced = (text: string, from: string, to: string): string => {
  if (!text.includes(from)) throw new Error(`the page does not say ${from}`);
  return text.replace(from, to);
};

const codex = {
  page: "codex",
  program: "codex",
  flags: ["--dangerously-bypass-approvals-and-sandbox", "--json"],
} as const;
const OFFLINE_CODEX = "\n[analytics]\nenabled = false\n";

const openCode = {
  page: "opencode",
  program: "opencode",
  env: {
    OPENCODE_DISABLE_MODELS_FETCH: "1",
    OPENCODE_DISABLE_AUTOUPDATE: "1",
    OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
  },
} as const;
const OPEN_CODE_ALONE = '{ "autoupdate": false, "share": "disabled", "permission": { "*": "allow" },';
const openCodeBy = (npm: string) => (text: string) =>
  replaced(replaced(text, "{", OPEN_CODE_ALONE), "@ai-sdk/openai-compatible", npm);

const claude = {
  page: "claude-code",
  program: "claude",
  flags: ["--output-format", "json"],
  env: { DISABLE_AUTOUPDATER: "1" },
} as const;

export const agents: readonly Agent[] = [
  {
    ...codex,
    name: "Codex, server-sent events",
    edit: (text) => replaced(text, "supports_websockets = true", "supports_websockets = false") + OFFLINE_CODEX,
  },
  { ...codex, name: "Codex, WebSocket", edit: (text) => text + OFFLINE_CODEX },
  { ...claude, name: "Claude Code, by its environment", edit: () => "{}" },
  {
    ...claude,
    name: "Claude Code, by its settings.json",
    only: /claude -p/,
    env: { ...claude.env, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1" },
  },
  { ...openCode, name: "OpenCode, chat completions", edit: openCodeBy("@ai-sdk/openai-compatible") },
  { ...openCode, name: "OpenCode, Responses", edit: openCodeBy("@ai-sdk/openai") },
  { ...openCode, name: "OpenCode, Messages", edit: openCodeBy("@ai-sdk/anthropic") },
  { name: "Cline", page: "cline", program: "cline" },
  { name: "Continue", page: "continue", program: "cn" },
  { name: "Gemini CLI", page: "gemini-cli", program: "gemini" },
  { name: "Qwen Code", page: "qwen-code", program: "qwen" },
];
