/**
 * What clients of each dialect send, and the signs in what they get back.
 * 1. `small` is one question. `agent` is what a coding agent sends in the middle of its work: 50 kB with 20 tools, a system prompt, and turns of calls
 *    with their results; the same content in every dialect.
 * 2. The prompt is the last thing that the user says, so that an agent's conversation begins alike in every request, as it does in life.
 */

export const CLIENT_DIALECTS = ["chat", "responses", "messages", "gemini", "ollama"] as const;
export type ClientDialect = (typeof CLIENT_DIALECTS)[number];
export type RequestSize = "small" | "agent";

export interface Asked {
  readonly model: string;
  readonly prompt: string;
  readonly stream: boolean;
}

export interface ClientRequest {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: object;
}

/** What of a streamed answer means what, by searches in single lines. */
export interface StreamSigns {
  /** Stands before the text of a delta. */
  readonly delta: string;
  readonly end: string;
  readonly error: string;
}

export const STREAM_SIGNS: Readonly<Record<ClientDialect, StreamSigns>> = {
  chat: { delta: '"content":"', end: "[DONE]", error: '"error"' },
  responses: { delta: '"delta":"', end: '"type":"response.completed"', error: '"type":"response.failed"' },
  messages: { delta: '"text":"', end: '"type":"message_stop"', error: '"type":"error"' },
  gemini: { delta: '"text":"', end: '"finishReason":"STOP"', error: '{"error"' },
  ollama: { delta: '"content":"', end: '"done":true', error: '{"error"' },
};

export function clientRequest(dialect: ClientDialect, size: RequestSize, asked: Asked): ClientRequest {
  const story = size === "agent" ? AGENT : NOTHING;
  switch (dialect) {
    case "chat":
      return { path: "/v1/chat/completions", body: chatBody(asked, story) };
    case "responses":
      return { path: "/v1/responses", body: responsesBody(asked, story) };
    case "messages":
      return {
        path: "/v1/messages",
        headers: { "anthropic-version": "2023-06-01" },
        body: messagesBody(asked, story),
      };
    case "gemini": {
      const method = asked.stream ? "streamGenerateContent?alt=sse" : "generateContent";
      return { path: `/v1beta/models/${asked.model}:${method}`, body: geminiBody(asked, story) };
    }
    case "ollama":
      return { path: "/api/chat", body: ollamaBody(asked, story) };
  }
}

interface Turn {
  readonly question: string;
  readonly says: string;
  readonly calls: readonly {
    readonly id: string;
    readonly name: string;
    readonly input: object;
    readonly result: string;
  }[];
}

interface Story {
  readonly system: string;
  readonly tools: readonly { readonly name: string; readonly description: string; readonly schema: object }[];
  readonly turns: readonly Turn[];
}

const NOTHING: Story = { system: "", tools: [], turns: [] };

const RULES =
  "Read a file before you change it. Keep to the style of the code around it, and say in one sentence what you did.\n" +
  '\t- Paths are absolute; quote them when they have a space, like "my notes.md".\n';
const CODE =
  'export function add(left: number, right: number): number {\n\tconst name = "sum";\n\treturn left + right; // größer\n}\n';

/** (1) */
const AGENT: Story = {
  system: RULES.repeat(48),
  tools: Array.from({ length: 20 }, (_, at) => ({
    name: `tool_${at}`,
    description: `Tool ${at} of the editor. ${RULES.repeat(2)}`,
    schema: toolSchema(at),
  })),
  turns: Array.from({ length: 8 }, (_, at) => ({
    question: `Step ${at}: look at what is there and go on.`,
    says: "I will look at both files.",
    calls: [0, 1].map((call) => ({
      id: `call_${at}_${call}`,
      name: `tool_${call}`,
      input: { path: `/home/user/project/file-${at}-${call}.ts`, limit: 200 },
      result: CODE.repeat(4 + at),
    })),
  })),
};

function toolSchema(at: number): object {
  return {
    type: "object",
    properties: {
      path: { type: "string", description: "The absolute path of the file." },
      limit: { type: "integer", minimum: 1, description: "How many lines at most." },
      mode: { type: "string", enum: ["read", "write", `mode-${at}`] },
      edits: {
        type: "array",
        items: {
          type: "object",
          properties: { old: { type: "string" }, new: { type: "string" }, all: { type: "boolean" } },
          required: ["old", "new"],
          additionalProperties: false,
        },
      },
    },
    required: ["path"],
    additionalProperties: false,
  };
}

function chatBody({ model, prompt, stream }: Asked, { system, tools, turns }: Story): object {
  const asFunction = turns.flatMap(({ question, says, calls }) => [
    { role: "user", content: question },
    {
      role: "assistant",
      content: says,
      tool_calls: calls.map(({ id, name, input }) => ({
        id,
        type: "function",
        function: { name, arguments: JSON.stringify(input) },
      })),
    },
    ...calls.map(({ id, result }) => ({ role: "tool", tool_call_id: id, content: result })),
  ]);
  const first = system === "" ? [] : [{ role: "system", content: system }];
  return {
    model,
    messages: [...first, ...asFunction, { role: "user", content: prompt }],
    ...(tools.length === 0 ? {} : { tools: chatTools(tools), tool_choice: "auto" }),
    ...(stream ? { stream: true } : {}),
  };
}

const chatTools = (tools: Story["tools"]) =>
  tools.map(({ name, description, schema }) => ({
    type: "function",
    function: { name, description, parameters: schema },
  }));

function responsesBody({ model, prompt, stream }: Asked, { system, tools, turns }: Story): object {
  const said = (role: string, type: string, text: string) => ({ type: "message", role, content: [{ type, text }] });
  const input = turns.flatMap(({ question, says, calls }) => [
    said("user", "input_text", question),
    said("assistant", "output_text", says),
    ...calls.map(({ id, name, input: given }) => ({
      type: "function_call",
      call_id: id,
      name,
      arguments: JSON.stringify(given),
    })),
    ...calls.map(({ id, result }) => ({ type: "function_call_output", call_id: id, output: result })),
  ]);
  return {
    model,
    ...(system === "" ? {} : { instructions: system }),
    input: [...input, said("user", "input_text", prompt)],
    ...(tools.length === 0
      ? {}
      : {
          tools: tools.map(({ name, description, schema }) => ({
            type: "function",
            name,
            description,
            strict: false,
            parameters: schema,
          })),
          tool_choice: "auto",
          parallel_tool_calls: true,
        }),
    store: false,
    stream,
    include: ["reasoning.encrypted_content"],
  };
}

function messagesBody({ model, prompt, stream }: Asked, { system, tools, turns }: Story): object {
  const messages = turns.flatMap(({ question, says, calls }, at) => [
    // A tool's results open the user's next turn, as this dialect wants it.
    { role: "user", content: [...resultsOf(turns[at - 1]), { type: "text", text: question }] },
    {
      role: "assistant",
      content: [
        { type: "text", text: says },
        ...calls.map(({ id, name, input }) => ({ type: "tool_use", id, name, input })),
      ],
    },
  ]);
  return {
    model,
    max_tokens: 4096,
    ...(system === "" ? {} : { system: [{ type: "text", text: system, cache_control: { type: "ephemeral" } }] }),
    ...(tools.length === 0
      ? {}
      : { tools: tools.map(({ name, description, schema }) => ({ name, description, input_schema: schema })) }),
    messages: [...messages, { role: "user", content: [...resultsOf(turns.at(-1)), { type: "text", text: prompt }] }],
    stream,
  };
}

function resultsOf(turn: Turn | undefined): readonly object[] {
  const calls = turn?.calls ?? [];
  return calls.map(({ id, result }) => ({ type: "tool_result", tool_use_id: id, content: result }));
}

function geminiBody({ prompt }: Asked, { system, tools, turns }: Story): object {
  const said = (role: string, ...parts: readonly object[]) => ({ role, parts });
  const contents = turns.flatMap(({ question, says, calls }) => [
    said("user", { text: question }),
    said("model", { text: says }, ...calls.map(({ id, name, input }) => ({ functionCall: { id, name, args: input } }))),
    said(
      "user",
      ...calls.map(({ id, name, result }) => ({ functionResponse: { id, name, response: { output: result } } })),
    ),
  ]);
  const declarations = tools.map(({ name, description, schema }) => ({
    name,
    description,
    parametersJsonSchema: schema,
  }));
  return {
    ...(system === "" ? {} : { systemInstruction: { parts: [{ text: system }] } }),
    ...(tools.length === 0 ? {} : { tools: [{ functionDeclarations: declarations }] }),
    contents: [...contents, said("user", { text: prompt })],
  };
}

function ollamaBody({ model, prompt, stream }: Asked, { system, tools, turns }: Story): object {
  const messages = turns.flatMap(({ question, says, calls }) => [
    { role: "user", content: question },
    {
      role: "assistant",
      content: says,
      tool_calls: calls.map(({ name, input }) => ({ function: { name, arguments: input } })),
    },
    ...calls.map(({ name, result }) => ({ role: "tool", tool_name: name, content: result })),
  ]);
  const first = system === "" ? [] : [{ role: "system", content: system }];
  return {
    model,
    messages: [...first, ...messages, { role: "user", content: prompt }],
    ...(tools.length === 0 ? {} : { tools: chatTools(tools) }),
    stream,
  };
}
