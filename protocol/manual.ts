/**
 * docs/protocol.md, written from the method table and its schemas, so that it cannot say anything else than they do.
 * Deterministic: the same sources give the same text.
 */
import { z } from "zod";
import { approvalSchema } from "./approval.ts";
import { doctorFindingSchema } from "./daemon.ts";
import { errorCatalogue, GHOST_RPC_ERROR, wireErrorSchema } from "./errors.ts";
import { ghostApiMethods, type MethodDefinition, methodName, PROTOCOL_VERSION } from "./ghost-api.ts";
import { initializeParams, initializeResult } from "./initialize.ts";
import { ledgerRowSchema } from "./ledger.ts";
import { modelInfoSchema, providerStatusSchema } from "./model.ts";
import { capabilitySchema } from "./policy.ts";
import { routeDecisionSchema } from "./route.ts";
import { standardRpcCodes } from "./rpc-error.ts";
import { sessionEntrySchema, sessionSummarySchema } from "./session.ts";
import { settingsGetResult } from "./settings.ts";
import {
  INITIAL_STREAM_CREDIT,
  MAX_FRAME_BYTES,
  MAX_HEADER_BYTES,
  MAX_STREAM_CREDIT,
  STREAM_CREDIT,
  streamCreditParams,
  streamProgressValue,
  streamRequestExtras,
} from "./stream.ts";
import { usageSchema } from "./usage.ts";

/** Shapes that occur in several methods are written once, under these names. */
const sharedShapes: readonly (readonly [name: string, schema: z.ZodType])[] = [
  ["Approval", approvalSchema],
  ["Capability", capabilitySchema],
  ["DoctorFinding", doctorFindingSchema],
  ["LedgerRow", ledgerRowSchema],
  ["ModelInfo", modelInfoSchema],
  ["ProviderStatus", providerStatusSchema],
  ["RouteDecision", routeDecisionSchema],
  ["SessionEntry", sessionEntrySchema],
  ["SessionSummary", sessionSummarySchema],
  ["Usage", usageSchema],
  ["WireError", wireErrorSchema],
];
/** Named, and explained in words instead of a shape. */
const wordShapes: readonly (readonly [name: string, schema: z.ZodType])[] = [
  ["ErrorCode", wireErrorSchema.shape.code],
  ["Json", settingsGetResult.shape.settings.element.shape.value],
];

const names = z.registry<{ id: string }>();
for (const [id, schema] of [...sharedShapes, ...wordShapes]) names.add(schema, { id });

/** The whole manual as Markdown, with a final line break. */
export function renderProtocolManual(): string {
  const parts = [opening(), handshake(), streams(), errors(), methods(), shapes()];
  return `${parts.map((part) => part.trim()).join("\n\n")}\n`;
}

function opening(): string {
  return `
<!-- Written by protocol/manual.ts from the schemas in protocol/; change those, not this file. -->

# The protocol of ghostd

Version ${PROTOCOL_VERSION}. Faces (the command line, editors, the terminal dashboard, the web app) talk to the daemon in JSON-RPC 2.0. Everything
below derives from \`protocol/ghost-api.ts\`; within one major version, changes only add: fields, methods, error codes. A client ignores what it
does not know.

## Framing

The daemon listens on a Unix socket, \`$XDG_RUNTIME_DIR/ghoststack/ghostd-${PROTOCOL_VERSION}.sock\` or \`/tmp/ghoststack-<uid>/ghostd-${PROTOCOL_VERSION}.sock\`, mode 0600.
Messages are framed as in the base protocol of LSP 3.18: \`Content-Length: N\`, an empty line, and N bytes of JSON in UTF-8.

\`\`\`
Content-Length: 61\\r\\n
\\r\\n
{"jsonrpc":"2.0","id":1,"method":"ghost/session/list","params":{}}
\`\`\`

| bound | value | beyond it |
|---|---|---|
| header block | ${MAX_HEADER_BYTES} bytes | the connection ends |
| message, either way | ${MAX_FRAME_BYTES / 1024 / 1024} MiB (64 KiB before \`initialize\` has succeeded) | a request: the connection ends; a result: \`body_too_large\` |
| time for one message to arrive | 30 s | the connection ends |
| time until \`initialize\` | 5 s | the connection ends |
| open requests of one client, streams among them | 256, 64 | \`overloaded\` |

A frame that cannot be read, JSON that is not valid, a batch, or an id that is in use already ends the connection. Before that the daemon sends an
error reply, with the id of the request where it could be read and \`null\` otherwise.`.replace(
    "Content-Length: 61",
    `Content-Length: ${EXAMPLE.length}`,
  );
}

const EXAMPLE = '{"jsonrpc":"2.0","id":1,"method":"ghost/session/list","params":{}}';

function handshake(): string {
  return `
## Initialize

The first message is the request \`initialize\`, as in LSP, with our part under \`initializationOptions.ghost\`. Until it has succeeded, every other
request is answered with \`not_initialized\` and every notification is dropped. The key is the content of \`<data-dir>/face.key\`; model keys do not
open this door.

Params:

${code(shape(initializeParams, "input"))}

Result:

${code(shape(initializeResult, "output"))}

**Versions.** The client offers a range of major versions; the daemon answers with the highest that both speak. Where there is none it answers
\`protocol_unsupported\`, whose \`details\` name both ranges, and closes. A wrong key is answered with \`unauthenticated\`, then the daemon closes too.

After the reply the client sends the notification \`initialized\`. The request \`shutdown\` ends the client's work; after it only the notification
\`exit\` is expected, which closes the connection. Neither stops the daemon, which serves others: that is \`${methodName("daemon", "stop")}\`.

\`$/cancelRequest\` with \`{"id": …}\` stops a request or a stream; its reply is then the error \`cancelled\`. A client that closes its connection
cancels everything it had open.`;
}

function streams(): string {
  return `
## Streams and credit

A method marked *stream* takes two more parameters:

${code(shape(streamRequestExtras, "input"))}

Its items arrive as \`$/progress\` notifications under that token, several in one message when they were ready together. The value of each:

${code(shape(streamProgressValue, "output"))}

Each item costs one credit; with credit spent the daemon stops producing, so a slow reader slows the source and holds nothing up but itself. The
reader grants more with the notification \`${STREAM_CREDIT}\`:

${code(shape(streamCreditParams, "input"))}

A stream holds at most ${MAX_STREAM_CREDIT} credits; what is granted beyond is dropped. The client in this repository starts with ${INITIAL_STREAM_CREDIT} and grants half of
that whenever it has read as many. The reply to the request comes after the last item: \`null\` at the stream's end, or the error that ended it.`;
}

function errors(): string {
  const rows = Object.entries(errorCatalogue).map(([name, { family, meaning }]) => {
    const standard = standardRpcCodes.find(([other]) => other === name)?.[1] ?? GHOST_RPC_ERROR;
    return `| \`${name}\` | ${family} | ${standard} | ${meaning} |`;
  });
  return `
## Errors

Every error reply carries a \`WireError\` as its \`data\`: a code of the catalogue, a sentence for people, flat details (\`{"field": "messages.0.role"}\`),
and, where known, when trying again makes sense. The JSON-RPC number is the standard's own where there is one and ${GHOST_RPC_ERROR} otherwise. What to do about
each code stands in [errors.md](errors.md). A failure inside the daemon is \`internal\` with \`details.incident\`, the id under which the log has it.

| code | family | number | meaning |
|---|---|---|---|
${rows.join("\n")}`;
}

function methods(): string {
  const sections = Object.entries(ghostApiMethods).map(([namespace, group]) => {
    const entries = Object.entries<MethodDefinition>(group).map(([name, method]) =>
      renderMethod(methodName(namespace, name), method),
    );
    return [`### ${namespace}`, ...entries].join("\n\n");
  });
  return ["## Methods", ...sections].join("\n\n");
}

function renderMethod(name: string, method: MethodDefinition): string {
  const outcome = method.kind === "request" ? method.result : method.item;
  const params = shape(method.params, "input");
  return [
    `#### \`${name}\`${method.kind === "stream" ? " · stream" : ""}`,
    method.summary,
    params === "{}" ? "Params: none." : `Params:\n\n${code(params)}`,
    `${method.kind === "stream" ? "Item" : "Result"}:\n\n${code(shape(outcome, "output"))}`,
  ].join("\n\n");
}

function shapes(): string {
  const sections = sharedShapes.map(([name, schema]) => `### ${name}\n\n${code(shape(schema, "output", name))}`);
  const words = "`ErrorCode` is one of the codes of the table above. `Json` is any JSON value.";
  return ["## Shared shapes", words, ...sections].join("\n\n");
}

function code(type: string): string {
  // A union at the top begins on a line of its own, one step too far in.
  const flush = type.startsWith("\n") ? type.slice(1).replace(/^ {2}/gm, "") : type;
  return `\`\`\`ts\n${flush}\n\`\`\``;
}

/** The parts of JSON Schema that `z.toJSONSchema` makes of our schemas. */
interface JsonSchema {
  readonly $ref?: string | undefined;
  readonly $defs?: Readonly<Record<string, JsonSchema>> | undefined;
  readonly type?: string | undefined;
  readonly const?: unknown;
  readonly enum?: readonly unknown[] | undefined;
  readonly anyOf?: readonly JsonSchema[] | undefined;
  readonly oneOf?: readonly JsonSchema[] | undefined;
  readonly allOf?: readonly JsonSchema[] | undefined;
  readonly properties?: Readonly<Record<string, JsonSchema>> | undefined;
  readonly required?: readonly string[] | undefined;
  readonly additionalProperties?: JsonSchema | boolean | undefined;
  readonly items?: JsonSchema | undefined;
  readonly description?: string | undefined;
  readonly default?: unknown;
  readonly minimum?: number | undefined;
  readonly maximum?: number | undefined;
  readonly exclusiveMinimum?: number | undefined;
  readonly minLength?: number | undefined;
  readonly maxLength?: number | undefined;
  readonly maxItems?: number | undefined;
  readonly pattern?: string | undefined;
}

const text = z.string().optional();
const number = z.number().optional();
const jsonSchema: z.ZodType<JsonSchema> = z.lazy(() => {
  const list = z.array(jsonSchema).optional();
  const table = z.record(z.string(), jsonSchema).optional();
  return z.object({
    $ref: text,
    $defs: table,
    type: text,
    const: z.unknown().optional(),
    enum: z.array(z.unknown()).optional(),
    anyOf: list,
    oneOf: list,
    allOf: list,
    properties: table,
    required: z.array(z.string()).optional(),
    additionalProperties: z.union([z.boolean(), jsonSchema]).optional(),
    items: jsonSchema.optional(),
    description: text,
    default: z.unknown().optional(),
    minimum: number,
    maximum: number,
    exclusiveMinimum: number,
    minLength: number,
    maxLength: number,
    maxItems: number,
    pattern: text,
  });
});

/** A schema as a TypeScript type. `self` is its own name, where it is a shared shape. */
function shape(schema: z.ZodType, io: "input" | "output", self?: string): string {
  const json: JsonSchema = jsonSchema.parse(z.toJSONSchema(schema, { io, metadata: names, unrepresentable: "any" }));
  const own = self === undefined ? json : (json.$defs?.[self] ?? json);
  return typeText(own, "");
}

function typeText(schema: JsonSchema, indent: string): string {
  if (schema.$ref !== undefined) return schema.$ref.split("/").at(-1) ?? "unknown";
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const union = schema.anyOf ?? schema.oneOf;
  if (union !== undefined) return unionText(union, indent);
  if (schema.allOf?.[0] !== undefined) return typeText(schema.allOf[0], indent);
  if (schema.type === "array") return arrayText(schema, indent);
  if (schema.type === "object") return objectText(schema, indent);
  if (schema.type === "integer") return "number";
  return schema.type ?? "unknown";
}

function unionText(members: readonly JsonSchema[], indent: string): string {
  const texts = members.map((member) => typeText(member, `${indent}    `));
  const isLong = texts.some((member) => member.includes("\n")) || texts.join(" | ").length > 80;
  return isLong ? texts.map((member) => `\n${indent}  | ${member}`).join("") : texts.join(" | ");
}

function arrayText(schema: JsonSchema, indent: string): string {
  const item = typeText(schema.items ?? {}, indent);
  return /^[\w]+$/.test(item) || item.startsWith("{") ? `${item}[]` : `(${item})[]`;
}

function objectText(schema: JsonSchema, indent: string): string {
  const fields = Object.entries(schema.properties ?? {});
  const others = schema.additionalProperties;
  if (fields.length === 0) {
    if (typeof others !== "object") return "{}";
    const value = typeText(others, indent);
    return value === "unknown" || Object.keys(others).length === 0 ? "object" : `Record<string, ${value}>`;
  }
  const lines = fields.flatMap(([name, field]) => {
    const mark = schema.required?.includes(name) === true ? "" : "?";
    const remark = remarks(field);
    const note = field.description === undefined ? [] : [`${indent}  /** ${field.description} */`];
    const type = typeText(field, `${indent}  `);
    const separator = type.startsWith("\n") ? ":" : ": ";
    return [...note, `${indent}  ${name}${mark}${separator}${type};${remark === "" ? "" : ` // ${remark}`}`];
  });
  return `{\n${lines.join("\n")}\n${indent}}`;
}

/** What a type cannot say: ranges, lengths, defaults. */
function remarks(schema: JsonSchema): string {
  const isSafeBound = (bound: number | undefined) => bound !== undefined && Math.abs(bound) !== Number.MAX_SAFE_INTEGER;
  const parts = [
    schema.type === "integer" ? "integer" : "",
    isSafeBound(schema.minimum) ? `≥ ${schema.minimum}` : "",
    schema.exclusiveMinimum === undefined ? "" : `> ${schema.exclusiveMinimum}`,
    isSafeBound(schema.maximum) ? `≤ ${schema.maximum}` : "",
    (schema.minLength ?? 0) > 1 ? `at least ${schema.minLength} characters` : schema.minLength === 1 ? "not empty" : "",
    schema.maxLength === undefined ? "" : `at most ${schema.maxLength} characters`,
    schema.maxItems === undefined ? "" : `at most ${schema.maxItems}`,
    schema.pattern === undefined ? "" : `/${schema.pattern}/`,
    schema.default === undefined ? "" : `default ${JSON.stringify(schema.default)}`,
  ];
  return parts.filter((part) => part !== "").join(", ");
}
