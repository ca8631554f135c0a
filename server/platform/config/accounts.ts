/** Settings of the providers that take an account of the user's own. */
import { z } from "zod";
import { localitySchema } from "../../../protocol/model.ts";
import { about, httpUrl, named, pattern, section, URL_EXPECTED } from "./setting.ts";

const keyEnv = (standard: string) =>
  z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
    .max(128)
    .optional()
    .meta(
      about({
        description:
          "The name of the environment variable that holds its key. The key itself is never written here: `ghost keys set`.",
        example: `"MY_${standard}"`,
        otherwise: `the key that \`ghost keys set\` stored, else ${standard}`,
        expects: "the name of an environment variable (letters, digits and _)",
      }),
    );

/** What all providers with an account have in common. */
const account = (what: { readonly url: string; readonly key: string; readonly model: string }) => ({
  enabled: z
    .boolean()
    .default(true)
    .meta(about({ description: "Use it when there is a key for it.", example: "false" })),
  base_url: httpUrl
    .default(what.url)
    .meta(about({ description: "Its address.", example: `"${what.url}"`, expects: URL_EXPECTED })),
  locality: localitySchema.optional().meta(
    about({
      description: "Where text goes that is sent there.",
      example: '"cloud"',
      otherwise: "machine for a loopback address, lan for a private one, else cloud",
    }),
  ),
  key_env: keyEnv(what.key),
  models: z
    .array(pattern)
    .min(1)
    .max(1000)
    .optional()
    .meta(
      about({
        description: "Its models by name; `*` stands for anything.",
        example: `["${what.model}"]`,
        otherwise: "all that its account can use",
      }),
    ),
  headers_timeout_s: z
    .number()
    .min(0)
    .max(86_400)
    .default(600)
    .meta(
      about({
        description:
          "The longest wait for the beginning of an answer; 0 waits for ever. Some models think for minutes first.",
        unit: "seconds",
        example: "60",
      }),
    ),
  idle_timeout_s: z
    .number()
    .min(0)
    .max(86_400)
    .default(300)
    .meta(
      about({ description: "The longest silence inside an answer; 0 waits for ever.", unit: "seconds", example: "30" }),
    ),
});

export const anthropicSection = section(
  "Claude, by Anthropic's API.",
  account({ url: "https://api.anthropic.com/v1", key: "ANTHROPIC_API_KEY", model: "claude-*" }),
);
export const openAiSection = section(
  "GPT, by OpenAI's API.",
  account({ url: "https://api.openai.com/v1", key: "OPENAI_API_KEY", model: "gpt-*" }),
);
export const xaiSection = section(
  "Grok, by xAI's API.",
  account({ url: "https://api.x.ai/v1", key: "XAI_API_KEY", model: "grok-*" }),
);
export const geminiSection = section(
  "Gemini, by Google's API.",
  account({
    url: "https://generativelanguage.googleapis.com/v1beta",
    key: "GEMINI_API_KEY",
    model: "gemini-*",
  }),
);
const {
  base_url: _fixed,
  models: _listed,
  ...azureAccount
} = account({
  url: "https://RESOURCE.openai.azure.com/openai/v1",
  key: "AZURE_OPENAI_API_KEY",
  model: "",
});
export const azureSection = section("GPT in an Azure resource of your own.", {
  ...azureAccount,
  base_url: httpUrl.optional().meta(
    about({
      description: "The address of your resource.",
      example: '"https://RESOURCE.openai.azure.com/openai/v1"',
      otherwise: "Azure is not used",
      expects: URL_EXPECTED,
    }),
  ),
  deployments: named(z.string().min(1).max(256))
    .default({})
    .meta(
      about({
        description: "Your deployments, each with the model that it runs; Azure lists neither.",
        example: 'my-gpt = "gpt-5.6-sol"',
      }),
    ),
});
export const copilotSection = section(
  "GitHub Copilot, by its official SDK, with your own GitHub account and its credits.",
  {
    enabled: z
      .boolean()
      .default(false)
      .meta(about({ description: "Use it when there is a GitHub token for it.", example: "true" })),
    key_env: keyEnv("COPILOT_GITHUB_TOKEN"),
    models: z
      .array(pattern)
      .min(1)
      .max(1000)
      .optional()
      .meta(
        about({
          description: "Its models by name; `*` stands for anything.",
          example: '["gpt-*"]',
          otherwise: "all that the account can use",
        }),
      ),
  },
);
export const claudeCodeSection = section(
  "Your own signed-in `claude` program, for a Claude plan. Text only. Read docs/providers.md for the terms first.",
  {
    enabled: z
      .boolean()
      .default(false)
      .meta(about({ description: "Start it for requests that name its models.", example: "true" })),
    command: z
      .string()
      .min(1)
      .max(4096)
      .default("claude")
      .meta(about({ description: "The program.", example: '"/usr/bin/claude"' })),
    models: z
      .array(pattern)
      .min(1)
      .max(100)
      .default(["default"])
      .meta(about({ description: "The names it is asked with.", example: '["opus", "sonnet"]' })),
  },
);
