/**
 * Every setting of ghost.toml: type, default, unit, description and example in one place. The parser, the manual (docs/configuration.md) and the
 * list of settings derive from it (STYLE 21). Keys are written as in the file.
 * 1. A key (a secret) is never a setting: settings name the environment variable that holds it.
 */
import { z } from "zod";
import { localitySchema } from "../../../protocol/model.ts";
import {
  anthropicSection,
  azureSection,
  claudeCodeSection,
  copilotSection,
  geminiSection,
  openAiSection,
  xaiSection,
} from "./accounts.ts";
import { about, httpUrl, isNormalPath, name, named, pattern, patterns, section, URL_EXPECTED } from "./setting.ts";

const httpSection = section("The HTTP front. It listens on 127.0.0.1 only.", {
  port: z
    .int()
    .min(0)
    .max(65_535)
    .default(4747)
    .meta(
      about({ description: "The port; 0 lets the system choose a free one. `--port` wins over it.", example: "4747" }),
    ),
  max_body_mib: z
    .int()
    .min(1)
    .max(1024)
    .default(32)
    .meta(about({ description: "The longest request body that is accepted.", unit: "MiB", example: "32" })),
  ollama: section("A second listener that speaks Ollama's own API, without a key, for tools that know nothing else.", {
    enabled: z
      .boolean()
      .default(false)
      .meta(about({ description: "Open it. Every program on this machine can then ask models.", example: "true" })),
    port: z
      .int()
      .min(0)
      .max(65_535)
      .default(11_435)
      .meta(about({ description: "Its port on 127.0.0.1; 0 lets the system choose a free one.", example: "11434" })),
    allow_cloud: z
      .boolean()
      .default(false)
      .meta(
        about({ description: "Cloud models may be asked through it, too; else local ones only.", example: "true" }),
      ),
  }).prefault({}),
});

const logSection = section("The daemon's log file, `ghostd.log` in the data folder.", {
  level: z
    .enum(["debug", "info", "warn", "error"])
    .default("info")
    .meta(about({ description: "The least important messages that are written.", example: '"debug"' })),
});

const embeddedSection = section(
  "The engine inside the daemon: llama.cpp in a child process that starts with the first request.",
  {
    enabled: z
      .boolean()
      .default(true)
      .meta(about({ description: "Offer the models of the embedded engine.", example: "false" })),
    threads: z
      .int()
      .min(1)
      .max(256)
      .default(1)
      .meta(
        about({
          description: "Threads that compute one answer. The small model that comes along gains nothing from more.",
          example: "4",
        }),
      ),
    context_size: z
      .int()
      .min(64)
      .max(4_194_304)
      .optional()
      .meta(
        about({
          description: "The context window of each model; its memory grows with it.",
          unit: "tokens",
          example: "8192",
          otherwise: "the model's own, at most 8192",
        }),
      ),
    idle_unload_minutes: z
      .number()
      .min(0)
      .max(10_080)
      .default(30)
      .meta(
        about({
          description: "The child process ends after so long without a request, which frees its memory; 0 keeps it.",
          unit: "minutes",
          example: "5",
        }),
      ),
    max_queue: z
      .int()
      .min(1)
      .max(10_000)
      .default(64)
      .meta(
        about({
          description: "Requests that may wait for the engine; the next one gets `engine_busy`.",
          example: "64",
        }),
      ),
    models: z
      .record(
        name,
        z
          .string()
          .max(4096)
          .refine((path) => isNormalPath(path)),
      )
      .default({})
      .meta(
        about({
          description:
            "Weights of your own that lie elsewhere, by name: GGUF files. `ghost models pull` needs no entry.",
          example: '{ "qwen-coder" = "/data/models/qwen2.5-coder-7b-q4.gguf" }',
          expects: "an absolute path without `.`, `..` or `//`",
        }),
      ),
  },
);

const localityAt = (example: string) =>
  localitySchema.optional().meta(
    about({
      description: "Where text goes that is sent there.",
      example,
      otherwise: "machine for a loopback address, lan for a private one, else cloud",
    }),
  );

const ollamaHost = section("One Ollama server. Its models are `ollama/<model>@<name>`.", {
  url: httpUrl.meta(
    about({ description: "Where it listens.", example: '"http://ws4090:11434"', expects: URL_EXPECTED }),
  ),
  locality: localityAt('"lan"'),
  vram_gib: z
    .number()
    .positive()
    .max(100_000)
    .optional()
    .meta(
      about({
        description: "Memory of its GPUs. No interface of Ollama tells it.",
        unit: "GiB",
        example: "24",
        otherwise: "unknown",
      }),
    ),
  parallel: z
    .int()
    .min(1)
    .max(1024)
    .default(1)
    .meta(
      about({
        description: "Requests that one model answers at once: the server's `OLLAMA_NUM_PARALLEL`.",
        example: "2",
      }),
    ),
  num_ctx: z
    .record(pattern, z.int().min(64).max(4_194_304))
    .default({})
    .meta(
      about({
        description: "The context window for single models. Changing it reloads the model.",
        unit: "tokens",
        example: '{ "deepseek-coder-v2" = 32768 }',
      }),
    ),
  default_num_ctx: z
    .int()
    .min(64)
    .max(4_194_304)
    .optional()
    .meta(
      about({
        description: "The context window for all its other models.",
        unit: "tokens",
        example: "8192",
        otherwise: "the server's own",
      }),
    ),
});

const ollamaSection = section("Ollama servers.", {
  discover: z
    .boolean()
    .default(true)
    .meta(
      about({
        description:
          "Look for a server on 127.0.0.1:11434 also when no host is configured. Not where `[http.ollama]` has that port.",
        example: "false",
      }),
    ),
  keep_alive: z
    .string()
    .regex(/^(0|-?(\d+(\.\d+)?(ms|s|m|h))+)$/)
    .default("10m")
    .meta(
      about({
        description: "How long a model stays in memory after its last request; negative means for ever, 0 not at all.",
        example: '"1h30m"',
        expects: 'a duration like "10m", "1h30m" or "-1m"',
      }),
    ),
  hosts: named(ollamaHost).default({}),
});

const compatibleServer = section("Any server that speaks OpenAI's API. Its models are `<name>/<model>`.", {
  base_url: httpUrl.meta(
    about({
      description: "Its address, as OpenAI's clients want it.",
      example: '"http://127.0.0.1:1234/v1"',
      expects: URL_EXPECTED,
    }),
  ),
  locality: localityAt('"machine"'),
  key_env: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
    .max(128)
    .optional()
    .meta(
      about({
        description: "The name of the environment variable that holds its key. The key itself is never written here.",
        example: '"LMSTUDIO_KEY"',
        otherwise: "the key of `ghost keys set <name>`, if there is one",
        expects: "the name of an environment variable (letters, digits and _)",
      }),
    ),
  models: z
    .array(pattern)
    .min(1)
    .max(1000)
    .optional()
    .meta(
      about({
        description: "Its models by name.",
        example: '["qwen2.5-coder-7b"]',
        otherwise: "asked from its `/models`",
      }),
    ),
  fim: z
    .boolean()
    .default(false)
    .meta(about({ description: "Its `/completions` understands `suffix` (infill).", example: "true" })),
  headers_timeout_s: z
    .number()
    .min(0)
    .max(86_400)
    .default(300)
    .meta(
      about({
        description: "The longest wait for the beginning of an answer; 0 waits for ever.",
        unit: "seconds",
        example: "60",
      }),
    ),
  idle_timeout_s: z
    .number()
    .min(0)
    .max(86_400)
    .default(120)
    .meta(
      about({ description: "The longest silence inside an answer; 0 waits for ever.", unit: "seconds", example: "30" }),
    ),
});

const weight = (standard: number, description: string) =>
  z
    .number()
    .min(0)
    .max(1000)
    .default(standard)
    .meta(about({ description, example: standard.toFixed(1) }));

const routingSection = section("How `ghost/auto` and the other virtual models choose.", {
  weights: section("What counts how much; only the proportions matter.", {
    quality: weight(1, "How well a model does the task."),
    cost: weight(0.6, "How little it costs."),
    latency: weight(0.4, "How soon it answers."),
  }).prefault({}),
  auto_swap: z
    .boolean()
    .default(false)
    .meta(
      about({
        description:
          "An answer may change its model for reasons other than a cut, and go beyond the locality it began with.",
        example: "true",
      }),
    ),
  intents: named(patterns)
    .default({})
    .meta(
      about({
        description: "Models for a kind of task, the preferred one first; `*` stands for anything.",
        example: 'code = ["ollama/deepseek-coder-v2@ws4090", "lmstudio/*"]',
      }),
    ),
  aliases: named(patterns)
    .default({})
    .meta(
      about({
        description: "Model names of your own: their models are tried in order.",
        example: '"fast-code" = ["ollama/qwen2.5-coder@ws4090", "lmstudio/*"]',
      }),
    ),
});

const contextSection = section("Where conversations are kept.", {
  store: z
    .enum(["sqlite"])
    .default("sqlite")
    .meta(about({ description: "The store; `sqlite` is a file in the data folder.", example: '"sqlite"' })),
});

/** Names that would hide our own providers and virtual models in `provider/model`. */
const RESERVED_PROVIDERS: ReadonlySet<string> = new Set([
  "embedded",
  "ollama",
  "ghost",
  "anthropic",
  "openai",
  "azure",
  "xai",
  "gemini",
  "copilot",
  "claude-code",
]);
const compatibleName = name.refine((text) => !RESERVED_PROVIDERS.has(text));

export const configSchema = z.strictObject({
  http: httpSection.prefault({}),
  log: logSection.prefault({}),
  providers: z
    .strictObject({
      embedded: embeddedSection.prefault({}),
      ollama: ollamaSection.prefault({}),
      compatible: z.record(compatibleName, compatibleServer).default({}),
      anthropic: anthropicSection.prefault({}),
      openai: openAiSection.prefault({}),
      azure: azureSection.prefault({}),
      xai: xaiSection.prefault({}),
      gemini: geminiSection.prefault({}),
      copilot: copilotSection.prefault({}),
      claude_code: claudeCodeSection.prefault({}),
    })
    .prefault({}),
  routing: routingSection.prefault({}),
  context: contextSection.prefault({}),
});

type DeepReadonly<Value> = Value extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : Value extends object
    ? { readonly [Key in keyof Value]: DeepReadonly<Value[Key]> }
    : Value;

/** The settings in force: complete, checked, frozen. */
export type GhostConfig = DeepReadonly<z.output<typeof configSchema>>;

/** Sections of later versions: a file that has them is accepted today, with a warning. */
export const LATER_SECTIONS: readonly (readonly string[])[] = [["quotas"], ["jarvis"]];

/** The part of a JSON Schema that the error messages and the manual read. */
export const schemaNode = z.looseObject({
  type: z.string().optional(),
  description: z.string().optional(),
  unit: z.string().optional(),
  example: z.string().optional(),
  otherwise: z.string().optional(),
  expects: z.string().optional(),
  default: z.json().optional(),
  enum: z.array(z.string()).optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  exclusiveMinimum: z.number().optional(),
  minItems: z.number().optional(),
  get properties() {
    return z.record(z.string(), schemaNode).optional();
  },
  get additionalProperties() {
    return z.union([z.boolean(), schemaNode]).optional();
  },
  get items() {
    return schemaNode.optional();
  },
});
export type SchemaNode = z.infer<typeof schemaNode>;

/** The schema as data: what can be written where. */
export function describeSchema(): SchemaNode {
  return schemaNode.parse(z.toJSONSchema(configSchema, { io: "input", unrepresentable: "any" }));
}

/** What a setting wants, in words: "a whole number from 0 to 65535". */
export function describeExpected(node: SchemaNode): string {
  if (node.expects !== undefined) return node.expects;
  if (node.enum !== undefined) return oneOf(node.enum);
  switch (node.type) {
    case "integer":
      return `a whole number${describeRange(node)}`;
    case "number":
      return `a number${describeRange(node)}`;
    case "boolean":
      return "true or false";
    case "string":
      return "a string";
    case "array":
      return `a list of strings${node.minItems === 1 ? " with at least one entry" : ""}`;
    default:
      return "a table";
  }
}

function describeRange(node: SchemaNode): string {
  const known = (limit: number | undefined) => limit !== undefined && Math.abs(limit) < Number.MAX_SAFE_INTEGER;
  const above = known(node.exclusiveMinimum) ? ` above ${node.exclusiveMinimum}` : "";
  const from = known(node.minimum) ? ` from ${node.minimum}` : above;
  const to = known(node.maximum) ? ` ${from === above && above !== "" ? "and at most" : "to"} ${node.maximum}` : "";
  return from + to;
}

function oneOf(values: readonly string[]): string {
  const quoted = values.map((value) => JSON.stringify(value));
  if (quoted.length < 2) return quoted.join("");
  return `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1) ?? ""}`;
}
