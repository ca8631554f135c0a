/**
 * Tools for upstreams that know plain functions only: namespaced and free-form tools as functions, names that an upstream does not take encoded, and all
 * of it turned back in what the model calls. Pure.
 * 1. The same tools always get the same names, also in the calls of earlier turns: a prompt cache and signed thinking depend on it.
 * 2. Two tools never share a name.
 */
import { createHash } from "node:crypto";
import type { ChatRequest, Frame, StreamEvent, ToolSpec } from "./stream.ts";
import { eventsFrame } from "./stream.ts";

export interface NameLimits {
  /** Characters outside are replaced. */
  readonly allowed: RegExp;
  readonly maxLength: number;
}

/** OpenAI, and what copies it. */
export const OPENAI_NAMES: NameLimits = { allowed: /^[A-Za-z0-9_-]+$/, maxLength: 64 };
export const ANTHROPIC_NAMES: NameLimits = { allowed: /^[A-Za-z0-9_-]+$/, maxLength: 128 };
export const GEMINI_NAMES: NameLimits = { allowed: /^[A-Za-z_][A-Za-z0-9_.:-]*$/, maxLength: 128 };

export interface WireFunction {
  readonly name: string;
  readonly description: string | undefined;
  readonly parameters: unknown;
  readonly strict: boolean | undefined;
}

interface Named {
  readonly name: string;
  readonly namespace?: string | undefined;
}

export interface WireTools {
  readonly functions: readonly WireFunction[];
  /** Names of tools that only their own provider could run. */
  readonly hosted: readonly string[];
  readonly choice: "auto" | "none" | "required" | { readonly name: string };
  /** The name of a call in an earlier turn, of tools that are still there or not. */
  wireName(call: Named): string;
  /** What the model calls, in the client's own names. The same frame where nothing is to be changed. */
  restore(frame: Frame): Frame;
}

/** A free-form tool takes its text as the one argument `input`. */
const CUSTOM_PARAMETERS = {
  type: "object",
  properties: { input: { type: "string", description: "The tool's input, as free text." } },
  required: ["input"],
  additionalProperties: false,
} as const;

export function wireTools(request: Pick<ChatRequest, "tools" | "toolChoice">, limits: NameLimits): WireTools {
  const { tools, toolChoice } = request;
  const wireName = naming(tools, limits);
  const byWireName = new Map<string, Exclude<ToolSpec, { kind: "hosted" }>>();
  const functions: WireFunction[] = [];
  const hosted: string[] = [];
  for (const tool of tools) {
    if (tool.kind === "hosted") {
      hosted.push(tool.name);
      continue;
    }
    const name = wireName(tool);
    if (byWireName.has(name)) continue;
    byWireName.set(name, tool);
    functions.push({
      name,
      description: describe(tool),
      parameters: tool.kind === "custom" ? CUSTOM_PARAMETERS : (tool.parameters ?? { type: "object", properties: {} }),
      strict: tool.kind === "function" ? tool.strict : undefined,
    });
  }
  const isPlain = [...byWireName].every(
    ([name, tool]) => tool.kind === "function" && tool.namespace === undefined && tool.name === name,
  );
  const restoreEvent = (event: StreamEvent): StreamEvent => {
    const tool = event.kind === "toolCall" && event.name !== undefined ? byWireName.get(event.name) : undefined;
    if (event.kind !== "toolCall" || tool === undefined) return event;
    return {
      ...event,
      name: tool.name,
      ...(tool.namespace === undefined ? {} : { namespace: tool.namespace }),
      ...(tool.kind === "custom" ? { isCustom: true } : {}),
    };
  };
  return {
    functions,
    hosted,
    choice: typeof toolChoice === "string" ? toolChoice : { name: wireName(toolChoice) },
    wireName,
    restore(frame) {
      if (isPlain) return frame;
      const events = frame.events();
      return events.some(({ kind }) => kind === "toolCall") ? eventsFrame(events.map(restoreEvent)) : frame;
    },
  };
}

/** By their order, the first tool that would have a name has it; another that would have the same gets one that is made of both its own (2). */
function naming(tools: readonly ToolSpec[], limits: NameLimits): WireTools["wireName"] {
  const owners = new Map<string, string>();
  for (const tool of tools) {
    if (tool.kind === "hosted") continue;
    const name = encode(tool, limits);
    if (!owners.has(name)) owners.set(name, ownName(tool));
  }
  return (call) => {
    const name = encode(call, limits);
    const own = ownName(call);
    return (owners.get(name) ?? own) === own ? name : withSuffix(name, own, limits);
  };
}

const ownName = ({ name, namespace }: Named): string => JSON.stringify([namespace ?? "", name]);

function describe(tool: Exclude<ToolSpec, { kind: "hosted" }>): string | undefined {
  if (tool.kind !== "custom" || tool.format === undefined) return tool.description;
  return `${tool.description ?? ""}\nThe input must follow this format: ${JSON.stringify(tool.format)}`.trim();
}

/** Hex digits of a hash that keep encoded names apart. */
const SUFFIX_LENGTH = 8;

function encode({ name, namespace }: Named, limits: NameLimits): string {
  const full = namespace === undefined ? name : `${namespace}__${name}`;
  return full.length <= limits.maxLength && limits.allowed.test(full) ? full : withSuffix(full, full, limits);
}

function withSuffix(name: string, hashed: string, { maxLength }: NameLimits): string {
  const suffix = createHash("sha256").update(hashed).digest("hex").slice(0, SUFFIX_LENGTH);
  const readable = name.replace(/[^A-Za-z0-9_-]/g, "_").replace(/^[^A-Za-z_]/, "_");
  return `${readable.slice(0, maxLength - SUFFIX_LENGTH - 1)}_${suffix}`;
}
