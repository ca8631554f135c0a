/**
 * The rules by which the Gemini API refuses a well-formed body: each takes the request and says what is wrong with it, in the API's words.
 * Sources: the public API reference and guides, error texts quoted in public issues. The first rule that is broken answers.
 */
import type { GeminiContent, GeminiPart, GenerateBody } from "./gemini-host-body.ts";
import type { GeminiMemory } from "./gemini-host-memory.ts";
import { type GeminiFacts, geminiFactsOf } from "./gemini-host-models.ts";

export interface GeminiCase {
  readonly body: GenerateBody;
  readonly contents: readonly GeminiContent[];
  readonly facts: GeminiFacts;
  readonly memory: GeminiMemory;
}

type Rule = (request: GeminiCase) => string | undefined;

const FUNCTION_NAME = /^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$/;
const MAX_STOP_SEQUENCES = 5;
const KIND_FIELDS = ["text", "functionCall", "functionResponse", "inlineData", "fileData"] as const;
const EQUAL_NUMBERS =
  "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.";

export function brokenGeminiRule(request: {
  readonly body: GenerateBody;
  readonly model: string;
  readonly memory: GeminiMemory;
}): string | undefined {
  const { body, model, memory } = request;
  const whole = { body, contents: body.contents ?? [], facts: geminiFactsOf(model), memory };
  for (const rule of rules) {
    const problem = rule(whole);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const rules: readonly Rule[] = [
  shape,
  declarations,
  calling,
  output,
  thinking,
  callsAndResponses,
  lastTurn,
  signatures,
  continuation,
];

function shape({ contents }: GeminiCase): string | undefined {
  if (contents.length === 0) return "* GenerateContentRequest.contents: contents is not specified\n";
  for (const [index, { role, parts }] of contents.entries()) {
    if (role !== undefined && role !== "user" && role !== "model" && role !== "function") {
      return "Please use a valid role: user, model.";
    }
    const path = `* GenerateContentRequest.contents[${index}].parts`;
    if (parts === undefined || parts.length === 0) return `${path}: contents.parts must not be empty.\n`;
    const bare = parts.findIndex((part) => KIND_FIELDS.filter((field) => part[field] !== undefined).length !== 1);
    if (bare >= 0) return `${path}[${bare}].data: required oneof field 'data' must have one initialized field\n`;
  }
  return undefined;
}

function declarations({ body }: GeminiCase): string | undefined {
  const names = new Set<string>();
  for (const [at, tool] of (body.tools ?? []).entries()) {
    for (const [index, declaration] of (tool.functionDeclarations ?? []).entries()) {
      const path = `GenerateContentRequest.tools[${at}].function_declarations[${index}]`;
      if (!FUNCTION_NAME.test(declaration.name)) {
        return `* ${path}.name: [FIELD_INVALID] Invalid function name. Must start with a letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 128.\n`;
      }
      if (names.has(declaration.name)) return `Duplicate function declaration found: ${declaration.name}`;
      names.add(declaration.name);
      if (declaration.parameters !== undefined && declaration.parametersJsonSchema !== undefined) {
        return `* ${path}: parameters and parameters_json_schema are mutually exclusive.\n`;
      }
    }
  }
  return undefined;
}

function calling({ body }: GeminiCase): string | undefined {
  const config = body.toolConfig?.functionCallingConfig;
  const allowed = config?.allowedFunctionNames ?? [];
  const declared = (body.tools ?? []).flatMap((tool) => tool.functionDeclarations ?? []).map(({ name }) => name);
  if (config?.mode === "ANY" && declared.length === 0) {
    return "Function calling config is set without function_declarations.";
  }
  if (allowed.length === 0) return undefined;
  if (config?.mode !== "ANY" && config?.mode !== "VALIDATED") {
    return "Allowed function names should only be set when function calling mode is ANY or VALIDATED.";
  }
  const strange = allowed.find((name) => !declared.includes(name));
  return strange === undefined
    ? undefined
    : `Allowed function name \`${strange}\` is not in the list of function declarations.`;
}

function output({ body }: GeminiCase): string | undefined {
  const config = body.generationConfig ?? {};
  if ((config.stopSequences ?? []).length > MAX_STOP_SEQUENCES) {
    return `* GenerateContentRequest.generation_config.stop_sequences: The number of stop sequences must not exceed ${MAX_STOP_SEQUENCES}.\n`;
  }
  const hasSchema = config.responseSchema !== undefined || config.responseJsonSchema !== undefined;
  if (hasSchema && (config.responseMimeType ?? "text/plain") === "text/plain") {
    return "* GenerateContentRequest.generation_config.response_schema: only allowed when response_mime_type is `application/json` or `text/x.enum`.\n";
  }
  return config.responseSchema !== undefined && config.responseJsonSchema !== undefined
    ? "response_schema and response_json_schema are mutually exclusive."
    : undefined;
}

function thinking({ body, facts }: GeminiCase): string | undefined {
  const { thinkingBudget: budget, thinkingLevel: level } = body.generationConfig?.thinkingConfig ?? {};
  if (budget !== undefined && level !== undefined) {
    return "You can only set only one of thinking budget and thinking level.";
  }
  if (level !== undefined && !facts.takesLevel) return "Thinking level is not supported for this model.";
  if (level === "MINIMAL" && !facts.takesMinimal) return "Thinking level MINIMAL is not supported for this model.";
  if (budget === undefined) return undefined;
  if (!facts.takesBudget) return "Thinking budget is not supported for this model.";
  if (budget < -1) return `The thinking budget ${budget} is invalid.`;
  return budget === 0 && !facts.canBeQuiet ? "Budget 0 is invalid. This model only works in thinking mode." : undefined;
}

/** Calls are answered in the very next turn, each by its name (and id, where it has one); results have their calls in the turn before. */
function callsAndResponses({ contents }: GeminiCase): string | undefined {
  for (const [index, { role, parts = [] }] of contents.entries()) {
    const calls = parts.flatMap((part) => (part.functionCall === undefined ? [] : [part.functionCall]));
    const results = parts.flatMap((part) => (part.functionResponse === undefined ? [] : [part.functionResponse]));
    const before = contents[index - 1];
    if (calls.length > 0) {
      if (role !== "model" || before === undefined || before.role === "model") {
        return "Please ensure that function call turn comes immediately after a user turn or after a function response turn.";
      }
      const after = contents[index + 1];
      if (after !== undefined && !(after.parts ?? []).some((part) => part.functionResponse !== undefined)) {
        return EQUAL_NUMBERS;
      }
    }
    if (results.length === 0) continue;
    const asked = (before?.parts ?? []).flatMap((part) => (part.functionCall === undefined ? [] : [part.functionCall]));
    if (role === "model" || asked.length === 0) {
      return "Please ensure that function response turn comes immediately after a function call turn.";
    }
    if (asked.length !== results.length) return EQUAL_NUMBERS;
    const left = [...asked];
    for (const { id, name } of results) {
      const at = left.findIndex((call) => call.name === name && (id === undefined || call.id === id));
      if (at < 0) return `Function response \`${name}\` does not match any function call of the function call turn.`;
      left.splice(at, 1);
    }
  }
  return undefined;
}

function lastTurn({ contents }: GeminiCase): string | undefined {
  return contents.at(-1)?.role === "model" ? "Requests ending with a model turn are not supported." : undefined;
}

/** The current turn is what follows the last message of the user's own; in it the first call of each step has its signature. */
function signatures({ contents, facts, memory }: GeminiCase): string | undefined {
  const isOwn = ({ role, parts = [] }: GeminiContent) =>
    role !== "model" && parts.some((part) => part.functionResponse === undefined);
  const start = contents.findLastIndex(isOwn);
  for (const [index, { parts = [] }] of contents.entries()) {
    if (parts.some((part) => !memory.isGenuine(part))) return "Corrupted thought signature.";
    const call = parts.find((part): part is GeminiPart => part.functionCall !== undefined);
    if (call === undefined || index < start || !facts.signsCalls || call.thoughtSignature !== undefined) continue;
    return `Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and missing thought_signature may lead to degraded model performance. Additional data, function call \`default_api:${call.functionCall?.name}\` , position ${index + 1}. Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details.`;
  }
  return undefined;
}

function continuation({ body, facts, memory }: GeminiCase): string | undefined {
  if (body.continuationToken === undefined) return undefined;
  if (!facts.continues) return "Continuation is not supported for this model.";
  return memory.continues(body) ? undefined : "The continuation token is invalid for this request.";
}
