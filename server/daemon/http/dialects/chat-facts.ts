/**
 * What the rest of the daemon needs to know of a chat request, whatever dialect it came in; each dialect's `*-request.ts` reads its bodies into this.
 * Plain JSON and small: a worker hands it over for large bodies, while the messages stay there until somebody wants them.
 */
import type { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import type {
  Message,
  OutputOptions,
  ReasoningOptions,
  Sampling,
  ToolChoice,
  ToolSpec,
} from "../../../ghostllm/stream.ts";

export interface ChatFacts<Own = unknown> {
  readonly model: string;
  readonly stream: boolean;
  readonly output: OutputOptions;
  readonly sampling: Sampling;
  readonly tools: readonly ToolSpec[];
  readonly toolChoice: ToolChoice;
  readonly parallelToolCalls?: boolean;
  readonly reasoning?: ReasoningOptions;
  readonly hasImages: boolean;
  readonly hasFiles: boolean;
  readonly cacheKey?: string;
  /** Fields without a canonical form, by their name in the dialect. */
  readonly extras: Readonly<Record<string, unknown>>;
  /** Holds something that another maker must not see (`OPAQUE_MARK`): it is translated, never relayed. */
  readonly isForeign: boolean;
  /** What only the dialect itself needs, to write its answer. */
  readonly own: Own;
}

export interface ParsedChat<Own = unknown> {
  readonly facts: ChatFacts<Own>;
  messages(): readonly Message[];
}

/** OpenAI takes 128; agents with many servers attached send some hundreds. Each costs routing, and the main loop, its share. */
export const MAX_TOOLS = 512;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The body as JSON of this shape. @throws UserError `invalid_json` | `invalid_params` with the field that the client can mend. */
export function checkBody<Shape>(schema: z.ZodType<Shape>, body: Buffer): Shape {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(body));
  } catch (error) {
    const reason = error instanceof Error ? error.message : "unreadable";
    throw new UserError("invalid_json", `the body is not valid JSON: ${reason.slice(0, 200)}`, { cause: error });
  }
  return checkValue(schema, value);
}

/** The same for JSON that was parsed already; `place`: where in the body it stands. */
export function checkValue<Shape>(schema: z.ZodType<Shape>, value: unknown, place?: string): Shape {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues);
  const field = [...(place === undefined ? [] : [place]), ...issue.path.map(String)].join(".");
  throw new UserError("invalid_params", `${field === "" ? "the body" : `\`${field}\``}: ${issue.message}`, {
    details: { field },
  });
}

/** A union reports one issue for all its branches; the branch that got furthest names the field that the client can mend. */
function deepest(issues: readonly z.core.$ZodIssue[]): {
  readonly path: readonly PropertyKey[];
  readonly message: string;
} {
  const first = issues[0];
  if (first === undefined) return { path: [], message: "is not valid" };
  if (first.code !== "invalid_union" || first.errors.length === 0) return first;
  const branches = first.errors.map((branch) => deepest(branch)).toSorted((a, b) => b.path.length - a.path.length);
  const best = branches[0];
  return best === undefined || best.path.length === 0
    ? first
    : { path: [...first.path, ...best.path], message: best.message };
}

/** The fields of a request that no schema of ours names, and that say something. */
export function extrasOf(
  request: Readonly<Record<string, unknown>>,
  known: ReadonlySet<string>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(request).filter(([key, value]) => !known.has(key) && value !== null && value !== undefined),
  );
}
