/**
 * The tools of a request of Anthropic's Messages, as far as its model may see them. Pure.
 * 1. A deferred tool is offered from where the conversation names it: a result of the client's own search, or a turn of the system.
 * 2. Where Anthropic's own search would have found them, and is not there, all deferred tools are offered: nobody else could.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import type { ToolChoice, ToolSpec } from "../../../ghostllm/stream.ts";

const CLIENT_TOOL = "custom";
const clientTool = z.object({
  /** Anthropic's word for a tool that the client runs. */
  type: z.literal(CLIENT_TOOL).nullish(),
  name: z.string().min(1).max(256),
  description: z.string().nullish(),
  input_schema: z.looseObject({}),
  strict: z.boolean().nullish(),
  defer_loading: z.boolean().nullish(),
});
export const toolSchema = z.union([
  clientTool,
  /** One of Anthropic's own: it has no schema, because its models know it. */
  z.looseObject({ type: z.string().refine((type) => type !== CLIENT_TOOL), name: z.string().nullish() }),
]);
type Tool = z.infer<typeof toolSchema>;
type ClientTool = z.infer<typeof clientTool>;

const reference = z.object({ type: z.literal("tool_reference"), name: z.string() });
/** What an addition or a removal is about; tools of MCP servers, which the provider calls, are none of ours. */
const changedTool = z.union([
  reference,
  z.object({ type: z.literal("tool_definition"), definition: toolSchema }),
  z.object({ type: z.string() }).transform(() => undefined),
]);
/** Blocks of https://platform.claude.com/docs that change the tools in mid-conversation. */
export const toolAddition = z.object({ type: z.literal("tool_addition"), tool: changedTool });
export const toolRemoval = z.object({ type: z.literal("tool_removal"), tool: changedTool });

/** In the order in which the conversation has them. */
export type ToolChange =
  | { readonly kind: "named"; readonly name: string }
  | { readonly kind: "added"; readonly tool: z.infer<typeof changedTool> }
  | { readonly kind: "removed"; readonly tool: z.infer<typeof changedTool> };

const parallel = { disable_parallel_tool_use: z.boolean().nullish() };
export const toolChoiceSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("auto"), ...parallel }),
  z.object({ type: z.literal("any"), ...parallel }),
  z.object({ type: z.literal("none"), ...parallel }),
  z.object({ type: z.literal("tool"), name: z.string().min(1), ...parallel }),
]);

export function toTools(declared: readonly Tool[], changes: readonly ToolChange[]): readonly ToolSpec[] {
  const hasSearch = declared.some((tool) => !isClientTool(tool) && tool.type.startsWith("tool_search_tool"));
  const all = new Map<string, { readonly tool: Tool; isOffered: boolean }>();
  const add = (tool: Tool, isOffered: boolean) =>
    void all.set(isClientTool(tool) ? tool.name : (tool.name ?? tool.type), { tool, isOffered });
  const offer = (name: string, isOffered: boolean): void => {
    const entry = all.get(name);
    if (entry !== undefined) entry.isOffered = isOffered;
  };
  for (const tool of declared) add(tool, hasSearch || !isClientTool(tool) || tool.defer_loading !== true);
  for (const change of changes) {
    if (change.kind === "named") offer(change.name, true);
    else if (change.tool?.type === "tool_reference") offer(change.tool.name, change.kind === "added");
    else if (change.tool !== undefined && change.kind === "added") add(change.tool.definition, true);
  }
  return [...all.values()].flatMap(({ tool, isOffered }) => (isOffered ? [toTool(tool)] : []));
}

const isClientTool = (tool: Tool): tool is ClientTool =>
  tool.type === CLIENT_TOOL || tool.type === null || tool.type === undefined;

function toTool(tool: Tool): ToolSpec {
  if (!isClientTool(tool)) return { kind: "hosted", name: tool.name ?? tool.type, spec: tool };
  const { name, description, input_schema: parameters, strict } = tool;
  return { kind: "function", name, description: description ?? undefined, parameters, ...present("strict", strict) };
}

export function toToolChoice(choice: z.infer<typeof toolChoiceSchema> | null | undefined): ToolChoice {
  switch (choice?.type) {
    case undefined:
    case "auto":
      return "auto";
    case "any":
      return "required";
    case "none":
      return "none";
    case "tool":
      return { name: choice.name };
  }
}
