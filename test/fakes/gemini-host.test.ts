/** The fake of the Gemini API is driven by Google's official client, so that it is known to speak as the real one does. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  ApiError,
  type Content,
  FunctionCallingConfigMode,
  type GenerateContentConfig,
  type GenerateContentResponse,
  GoogleGenAI,
  type Part,
  ThinkingLevel,
} from "@google/genai";
import { type CloudScript, textScript, toolThenText } from "./cloud-script.ts";
import { type GeminiHost, startGeminiHost } from "./gemini-host.ts";
import { rawPost } from "./raw-post.ts";

const MODEL = "gemini-3.8-flash";
const STREAM = `/v1beta/models/${MODEL}:streamGenerateContent?alt=sse`;
const HELLO: Content = { role: "user", parts: [{ text: "Say hello" }] };
const TOOLS = [
  {
    functionDeclarations: [
      {
        name: "read_file",
        parametersJsonSchema: { type: "object", properties: { path: { type: "string" } }, additionalProperties: false },
      },
      { name: "list" },
    ],
  },
];

function client(host: GeminiHost, apiKey = "none"): GoogleGenAI {
  return new GoogleGenAI({ apiKey, httpOptions: { baseUrl: host.baseUrl, retryOptions: { attempts: 1 } } });
}

interface Asked {
  readonly model?: string;
  readonly contents?: Content[];
  readonly config?: GenerateContentConfig;
  readonly apiKey?: string;
}

function ask(host: GeminiHost, asked: Asked = {}): Promise<GenerateContentResponse> {
  const { model = MODEL, contents = [HELLO], config = {} } = asked;
  return client(host, asked.apiKey).models.generateContent({ model, contents, config });
}

async function chunks(host: GeminiHost, asked: Asked = {}): Promise<GenerateContentResponse[]> {
  const { model = MODEL, contents = [HELLO], config = {} } = asked;
  const all: GenerateContentResponse[] = [];
  const stream = await client(host, asked.apiKey).models.generateContentStream({ model, contents, config });
  for await (const chunk of stream) all.push(chunk);
  return all;
}

function partsOf(responses: readonly GenerateContentResponse[]): Part[] {
  return responses.flatMap((response) => response.candidates?.[0]?.content?.parts ?? []);
}

function textOf(responses: readonly GenerateContentResponse[]): string {
  return partsOf(responses)
    .map((part) => (part.thought === true ? "" : (part.text ?? "")))
    .join("");
}

const PARALLEL: CloudScript = {
  blocks: [
    { kind: "reasoning", deltas: ["Let me ", "look."] },
    { kind: "text", deltas: ["Grüße ", "🦀"] },
    { kind: "tool-call", name: "read_file", arguments: ['{"pa', 'th":"a.ts"}'], id: "call_a" },
    { kind: "tool-call", name: "list", arguments: [] },
  ],
};
const THOUGHTS = { thinkingConfig: { includeThoughts: true } };

describe("healthy answers", () => {
  test("whole and streamed answers are the same: text, thoughts, parallel calls, calls without arguments", async () => {
    await using host = await startGeminiHost({ script: PARALLEL });
    const config = { tools: TOOLS, ...THOUGHTS };
    const whole = await ask(host, { config });
    assert.equal(textOf([whole]), "Grüße 🦀");
    const [thought, , first, second] = partsOf([whole]);
    assert.deepEqual(thought, { text: "Let me look.", thought: true });
    assert.deepEqual(first?.functionCall, { id: "call_a", name: "read_file", args: { path: "a.ts" } });
    assert.match(first?.thoughtSignature ?? "", /=$/);
    assert.deepEqual(second, { functionCall: { id: "call_fake_1_3", name: "list", args: {} } });
    const streamed = await chunks(host, { config });
    assert.equal(textOf(streamed), "Grüße 🦀");
    const called = streamed.flatMap((chunk) => chunk.functionCalls ?? []);
    assert.deepEqual(
      called.map(({ name, args }) => [name, args]),
      [
        ["read_file", { path: "a.ts" }],
        ["list", {}],
      ],
    );
    assert.equal(streamed.at(-1)?.candidates?.[0]?.finishReason, "STOP");
    assert.equal(host.requests[1]?.tokensSent, 6);
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });

  test("usage is a running total that ends at the whole", async () => {
    const usage = { inputTokens: 1000, cachedTokens: 700, outputTokens: 50, reasoningTokens: 30 };
    await using host = await startGeminiHost({ script: { ...textScript("a", "b"), usage } });
    const streamed = await chunks(host);
    assert.deepEqual(
      streamed.map((chunk) => chunk.usageMetadata?.candidatesTokenCount),
      [1, 2, 20],
    );
    for (const metadata of [streamed.at(-1)?.usageMetadata, (await ask(host)).usageMetadata]) {
      assert.equal(metadata?.promptTokenCount, 1000);
      assert.equal(metadata?.cachedContentTokenCount, 700);
      assert.equal(metadata?.thoughtsTokenCount, 30);
      assert.equal(metadata?.totalTokenCount, 1050);
    }
  });

  test("limits, stop sequences, refusals, blocked prompts and words of the script end an answer as they say", async () => {
    await using host = await startGeminiHost({ script: textScript("one ", "two ", "three ") });
    const end = async (config: GenerateContentConfig = {}) => {
      const all = await chunks(host, { config });
      return [textOf(all), all.at(-1)?.candidates?.[0]?.finishReason];
    };
    assert.deepEqual(await end({ maxOutputTokens: 2 }), ["one two ", "MAX_TOKENS"]);
    assert.deepEqual(await end({ stopSequences: ["wo th"] }), ["one t", "STOP"]);
    host.play({ ...textScript("x"), finishReason: "MALFORMED_FUNCTION_CALL" });
    assert.deepEqual(await end(), ["x", "MALFORMED_FUNCTION_CALL"]);
    host.play({ blocks: [{ kind: "refusal", deltas: ["I "] }] });
    assert.deepEqual(await end(), ["I ", "SAFETY"]);
    host.play({ blocks: [{ kind: "refusal", deltas: [], category: "PROHIBITED_CONTENT" }] });
    assert.deepEqual(await end(), ["", undefined]);
    assert.equal((await ask(host)).promptFeedback?.blockReason, "PROHIBITED_CONTENT");
    host.play({ ...textScript("x"), usage: "never", model: "gemini-3.8-flash-001" });
    const [only] = await chunks(host);
    assert.deepEqual([only?.usageMetadata, only?.modelVersion], [undefined, "gemini-3.8-flash-001"]);
  });

  test("a script can ask for a tool once and then answer, the call coming back with its signature", async () => {
    await using host = await startGeminiHost();
    host.play(toolThenText({ name: "read_file", arguments: { path: "a.ts" } }, "It is empty."));
    const asked = partsOf(await chunks(host, { config: { tools: TOOLS } })).filter((part) => part.functionCall);
    const [call] = asked;
    const id = call?.functionCall?.id ?? "";
    const result: Content = {
      role: "user",
      parts: [{ functionResponse: { id, name: "read_file", response: { output: "" } } }],
    };
    const contents = [HELLO, { role: "model", parts: asked }, result];
    assert.equal(textOf(await chunks(host, { contents, config: { tools: TOOLS } })), "It is empty.");
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });

  test("models are listed in pages, tokens are counted, thoughts come only when they are asked for", async () => {
    const models = ["gemini-4-argon", "gemini-2.5-pro", "gemini-3.8-flash"];
    await using host = await startGeminiHost({ models, maxPageSize: 2, script: PARALLEL });
    const listed: string[] = [];
    for await (const model of await client(host).models.list()) {
      listed.push(model.name ?? "");
      assert.equal(model.inputTokenLimit, 1_048_576);
    }
    assert.deepEqual(
      listed,
      models.map((id) => `models/${id}`),
    );
    assert.equal(host.requests.length, 2);
    assert.equal((await client(host).models.get({ model: "gemini-2.5-pro" })).displayName, "Gemini 2.5 Pro");
    const shown = partsOf(await chunks(host)).filter((part) => part.thought);
    assert.deepEqual(shown, []);
    host.play({ usage: { inputTokens: 77 } });
    const counted = await client(host).models.countTokens({ model: "gemini-4-argon", contents: [HELLO] });
    assert.equal(counted.totalTokens, 77);
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });

  test("texts are embedded in batches of a hundred, by models that do", async () => {
    await using host = await startGeminiHost({ models: ["gemini-embedding-001"] });
    const { models } = client(host);
    const [listed] = (await models.list()).page;
    assert.ok(listed?.supportedActions?.includes("embedContent"));
    const embed = (model: string, contents: string[]) => models.embedContent({ model, contents });
    await assert.rejects(embed("gemini-embedding-9", ["a"]), ApiError);
    const tooMany = Array.from({ length: 101 }, () => "a");
    await assert.rejects(embed("gemini-embedding-001", tooMany), ApiError);
    const { embeddings } = await embed("gemini-embedding-001", ["a"]);
    assert.deepEqual(
      embeddings?.map(({ values }) => values),
      [[1, 97]],
    );
    assert.deepEqual(host.violations, []);
  });

  test("a stream has CRLF by itself and keeps its meaning in LF, with comments, unknown chunks, pieces of 3 bytes", async () => {
    await using host = await startGeminiHost();
    const script = textScript("Grüße ", "aus ", "Köln 🏙");
    host.play(script);
    const { bytes } = await rawPost(host.port, STREAM, { contents: [HELLO] });
    assert.match(bytes.toString(), /data: \{"candidates":\[\{"content":\{"parts":\[\{"text":"Grüße "\}\]/);
    assert.equal(bytes.toString().match(/\}\r\n\r\n/g)?.length, 4);
    for (const wire of [{ lineEnd: "\n" }, { writeBytes: 3 }, { unknownEventEvery: 1 }, { commentEvery: 1 }] as const) {
      host.play({ ...script, wire });
      const all = await chunks(host);
      assert.equal(textOf(all), "Grüße aus Köln 🏙", JSON.stringify(wire));
    }
  });
});

describe("signatures and long answers", () => {
  const config = { tools: TOOLS };
  const result = (name: string, id?: string): Part => ({
    functionResponse: { name, response: { output: "x" }, ...(id === undefined ? {} : { id }) },
  });
  const turn = (call: Part): Content[] => [
    HELLO,
    { role: "model", parts: [call] },
    { role: "user", parts: [result(call.functionCall?.name ?? "")] },
  ];

  test("from Gemini 3 on a call of the current turn comes back with its own signature or the placeholder", async () => {
    await using host = await startGeminiHost({ models: [MODEL, "gemini-2.5-pro"] });
    host.play({ blocks: [{ kind: "tool-call", name: "list", arguments: [] }] });
    const [call] = partsOf(await chunks(host, { config }));
    assert.ok(call !== undefined);
    const { thoughtSignature = "", ...bare } = call;
    await ask(host, { contents: turn(call), config });
    await ask(host, { contents: turn({ ...call, thoughtSignature: "skip_thought_signature_validator" }), config });
    await ask(host, { contents: turn(bare), config, model: "gemini-2.5-pro" });
    const later = [...turn(bare), { role: "model", parts: [{ text: "ok" }] }, HELLO];
    await ask(host, { contents: later, config });
    assert.deepEqual(host.refusals, []);
    await assert.rejects(
      ask(host, { contents: turn(bare), config }),
      /missing a thought_signature.*`default_api:list`/,
    );
    const strange = { ...call, thoughtSignature: "c3RyYW5nZQ==" };
    await assert.rejects(ask(host, { contents: turn(strange), config }), /Corrupted thought signature/);
    const moved = { functionCall: { name: "read_file", args: {} }, thoughtSignature };
    await assert.rejects(ask(host, { contents: turn(moved), config }), /Corrupted thought signature/);
    assert.deepEqual(host.violations, []);
  });

  test("a signed text has its signature behind it, on a part of its own", async () => {
    await using host = await startGeminiHost();
    host.play({ blocks: [{ kind: "text", deltas: ["a", "b"], isSigned: true }] });
    const parts = partsOf(await chunks(host));
    assert.deepEqual(
      parts.map(({ text, thoughtSignature }) => [text, thoughtSignature !== undefined]),
      [
        ["a", false],
        ["b", false],
        ["", true],
        ["", false],
      ],
    );
    const [whole] = partsOf([await ask(host)]);
    assert.ok(whole?.text === "ab" && whole.thoughtSignature !== undefined);
    await ask(host, { contents: [HELLO, { role: "model", parts: [whole] }, HELLO] });
  });

  test("a long answer goes on by its token: the same request, and no other", async () => {
    await using host = await startGeminiHost();
    const model = "gemini-4-argon";
    host.play(({ body }) => {
      const token = JSON.stringify(body).includes('"continuationToken":"VG9rZW4x"');
      const first = { ...textScript("a", "b", "c"), checkpoints: [{ afterTokens: 2, token: "Q2hlY2s=" }] };
      return token ? textScript("d") : { ...first, continuationToken: "VG9rZW4x" };
    });
    const byHand = { automaticContinuation: false };
    const all = await chunks(host, { model, config: byHand });
    assert.deepEqual(
      all.map((chunk) => chunk.candidates?.[0]?.continuationToken),
      [undefined, "Q2hlY2s=", undefined, "VG9rZW4x"],
    );
    assert.equal(all.at(-1)?.candidates?.[0]?.finishReason, "CONTINUATION");
    assert.equal(textOf(await chunks(host, { model, config: { ...byHand, continuationToken: "VG9rZW4x" } })), "d");
    await chunks(host, { model, config: { ...byHand, continuationToken: "Q2hlY2s=" } });
    assert.equal(textOf(await chunks(host, { model })), "abcd", "the client goes on by itself");
    const other = { model, config: { continuationToken: "VG9rZW4x", temperature: 1 } };
    await assert.rejects(ask(host, other), /token is invalid/);
    await assert.rejects(ask(host, { config: { continuationToken: "VG9rZW4x" } }), /not supported for this model/);
    assert.deepEqual(host.violations, []);
  });
});

describe("rules of the API", () => {
  test("each broken rule is answered 400 in the API's shape, and is no violation", async () => {
    await using host = await startGeminiHost();
    const call = (name: string): Part => ({
      functionCall: { name, args: {} },
      thoughtSignature: "skip_thought_signature_validator",
    });
    const result = (name: string, id?: string): Part => ({
      functionResponse: { name, response: {}, ...(id === undefined ? {} : { id }) },
    });
    const turns = (model: Part[], user?: Part[]) => ({
      contents: [
        HELLO,
        { role: "model", parts: model },
        ...(user === undefined ? [] : [{ role: "user", parts: user }]),
      ],
    });
    const thinking = (thinkingConfig: NonNullable<GenerateContentConfig["thinkingConfig"]>) => ({
      config: { thinkingConfig },
    });
    const declared = (name: string) => ({ functionDeclarations: [{ name }] });
    const mode = (functionCallingConfig: object, tools = TOOLS) => ({
      config: { tools, toolConfig: { functionCallingConfig } },
    });
    const cases: readonly (readonly [Asked, RegExp])[] = [
      [turns([{ text: "Hi" }]), /Requests ending with a model turn/],
      [turns([call("list")], [{ text: "x" }]), /number of function response parts/],
      [turns([call("list"), call("list")], [result("list")]), /number of function response parts/],
      [turns([call("list")], [result("other")]), /`other` does not match/],
      [turns([call("list")], [result("list", "strange")]), /`list` does not match/],
      [{ contents: [{ role: "user", parts: [result("list")] }] }, /function response turn comes immediately after/],
      [{ contents: [{ role: "model", parts: [call("list")] }] }, /function call turn comes immediately after/],
      [{ contents: [{ role: "assistant", parts: [{ text: "x" }] }] }, /valid role: user, model/],
      [{ contents: [{ role: "user", parts: [] }] }, /parts must not be empty/],
      [{ contents: [{ role: "user", parts: [{}] }] }, /required oneof field 'data'/],
      [{ config: { tools: [declared("1a")] } }, /Invalid function name/],
      [{ config: { tools: [declared("a"), declared("a")] } }, /Duplicate function declaration/],
      [mode({ mode: FunctionCallingConfigMode.AUTO, allowedFunctionNames: ["list"] }), /only be set when/],
      [mode({ mode: FunctionCallingConfigMode.ANY, allowedFunctionNames: ["x"] }), /`x` is not in the list/],
      [mode({ mode: FunctionCallingConfigMode.ANY }, []), /without function_declarations/],
      [{ config: { responseJsonSchema: { type: "object" } } }, /only allowed when response_mime_type/],
      [{ config: { stopSequences: ["1", "2", "3", "4", "5", "6"] } }, /must not exceed 5/],
      [{ model: "gemini-2.5-pro", ...thinking({ thinkingLevel: ThinkingLevel.LOW }) }, /level is not supported/],
      [{ model: "gemini-2.5-pro", ...thinking({ thinkingBudget: 0 }) }, /Budget 0 is invalid/],
      [thinking({ thinkingLevel: ThinkingLevel.MINIMAL }), /MINIMAL is not supported/],
      [thinking({ thinkingLevel: ThinkingLevel.LOW, thinkingBudget: 1 }), /only one of/],
      [{ model: "gemini-4-argon", ...thinking({ thinkingBudget: 512 }) }, /budget is not supported/],
    ];
    for (const [asked, expected] of cases) {
      const error: unknown = await chunks(host, asked).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof ApiError, `${expected}: ${JSON.stringify(error)}`);
      assert.equal(error.status, 400);
      assert.match(error.message, expected);
      assert.match(error.message, /"status":"INVALID_ARGUMENT"/);
    }
    assert.deepEqual(host.violations, []);
    assert.equal(host.refusals.length, cases.length);
  });

  test("what these rules are next to is answered", async () => {
    await using host = await startGeminiHost({ models: [MODEL, "gemini-2.5-flash", "gemini-3.5-flash"] });
    const any = { functionCallingConfig: { mode: FunctionCallingConfigMode.ANY, allowedFunctionNames: ["list"] } };
    await ask(host, { config: { tools: TOOLS, toolConfig: any } });
    await ask(host, { model: "gemini-2.5-flash", config: { thinkingConfig: { thinkingBudget: 0 } } });
    await ask(host, {
      model: "gemini-3.5-flash",
      config: { thinkingConfig: { thinkingLevel: ThinkingLevel.MINIMAL }, systemInstruction: "Be brief." },
    });
    const json = { responseMimeType: "application/json", responseJsonSchema: { type: "object" } };
    await ask(host, { config: { ...json, temperature: 0.5, stopSequences: ["x"] }, contents: [HELLO, HELLO] });
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });

  test("unknown fields and shapes are answered 400 and kept as violations; so are keys in the URL and unknown routes", async () => {
    await using host = await startGeminiHost();
    const bad: readonly (readonly [object, string])[] = [
      [{ contents: [HELLO], stop: ["x"] }, 'Unknown name "stop": Cannot find field.'],
      [{ contents: [{ role: "user", content: "x" }] }, `Unknown name "content" at 'contents[0]'`],
      [{ contents: [{ ...HELLO, parts: [{ text: "x", type: "text" }] }] }, `"type" at 'contents[0].parts[0]'`],
      [{ contents: "x" }, "Invalid value at 'contents'"],
      [
        {
          contents: [HELLO],
          tools: [{ functionDeclarations: [{ name: "a", parameters: { type: "OBJECT", $schema: "x" } }] }],
        },
        `"$schema" at 'tools[0].functionDeclarations[0].parameters'`,
      ],
    ];
    for (const [body, message] of bad) {
      const { bytes } = await rawPost(host.port, STREAM, body);
      assert.match(bytes.toString(), /^HTTP\/1.1 400 /);
      assert.ok(bytes.includes(JSON.stringify(message).slice(1, -1)), `${message}: ${bytes.toString()}`);
      assert.ok(host.violations.at(-1)?.includes(message));
    }
    const withKey = await rawPost(host.port, `${STREAM}&key=secret`, { contents: [HELLO] });
    assert.match(withKey.bytes.toString(), /^HTTP\/1.1 501 /);
    const unframed = await rawPost(host.port, STREAM.replace("?alt=sse", ""), { contents: [HELLO] });
    assert.match(unframed.bytes.toString(), /^HTTP\/1.1 501 /);
    assert.equal(host.violations.length, bad.length + 2);
  });

  test("keys and models are checked", async () => {
    await using host = await startGeminiHost({ apiKey: "right" });
    assert.equal((await ask(host, { apiKey: "right" })).text, "Hello from the fake host.");
    await assert.rejects(ask(host, { apiKey: "wrong" }), (error) => {
      assert.ok(error instanceof ApiError);
      return error.status === 400 && error.message.includes("API_KEY_INVALID");
    });
    const { bytes } = await rawPost(host.port, STREAM, { contents: [HELLO] });
    assert.match(bytes.toString(), /^HTTP\/1.1 403 [^]*"status":"PERMISSION_DENIED"/);
    await assert.rejects(ask(host, { apiKey: "right", model: "gemini-absent" }), (error) => {
      assert.ok(error instanceof ApiError);
      return error.status === 404 && error.message.includes("Call ListModels");
    });
    assert.deepEqual(host.violations, []);
  });
});

describe("faults", () => {
  test("statuses become the client's errors, the wait being in the details", async () => {
    await using host = await startGeminiHost();
    const cases: readonly (readonly [NonNullable<CloudScript["status"]>, RegExp])[] = [
      [{ code: 400, type: "FAILED_PRECONDITION", message: "no billing" }, /no billing.*FAILED_PRECONDITION/],
      [{ code: 429, retryAfterS: 7 }, /RESOURCE_EXHAUSTED.*"retryDelay":"7s"/],
      [{ code: 503 }, /overloaded.*UNAVAILABLE/],
      [{ code: 504 }, /DEADLINE_EXCEEDED/],
      [{ code: 502, body: "html", message: "Bad Gateway" }, /<title>502<\/title>/],
      [{ code: 500, body: "empty" }, /JSON/],
    ];
    for (const [status, expected] of cases) {
      host.playOnce({ status });
      const error: unknown = await chunks(host).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof Error, JSON.stringify(status));
      assert.match(error.message, expected);
      if (error instanceof ApiError) assert.equal(error.status, status.code);
    }
    assert.deepEqual(host.refusals, []);
  });

  test("an error follows what was sent before it, as a chunk or bare", async () => {
    await using host = await startGeminiHost();
    const error = { type: "UNAVAILABLE", message: "overloaded", errorCode: 503 };
    for (const as of ["error", "failed"] as const) {
      host.play({ ...textScript("a", "b", "c"), fault: { kind: "error-in-band", afterTokens: 2, error, as } });
      const thrown: unknown = await chunks(host).catch((reason: unknown) => reason);
      // The client knows a bare error only where the network brings it alone.
      assert.ok(as === "failed" ? thrown instanceof Error : thrown instanceof ApiError && thrown.status === 503);
      assert.equal(host.requests.at(-1)?.tokensSent, 2);
      assert.equal(host.requests.at(-1)?.state, "faulted");
    }
    const bare = (await rawPost(host.port, STREAM, { contents: [HELLO] })).bytes.toString();
    assert.ok(bare.includes('{"error":{"code":503,') && !bare.includes('data: {"error"'));
    host.play({ ...textScript("a"), fault: { kind: "error-in-band", afterTokens: 1, error } });
    const { bytes } = await rawPost(host.port, STREAM, { contents: [HELLO] });
    assert.match(
      bytes.toString(),
      /data: \{"error":\{"code":503,"message":"overloaded","status":"UNAVAILABLE"\}\}\r\n\r\n/,
    );
    assert.doesNotMatch(bytes.toString(), /finishReason/);
  });

  test("each cut sends exactly what it says and ends as it says", async () => {
    await using host = await startGeminiHost();
    for (const how of ["reset", "close", "clean"] as const) {
      for (const where of ["between-frames", "mid-frame", "mid-utf8"] as const) {
        host.play({ ...textScript("a1", "b2", "ü3"), fault: { kind: "cut", afterTokens: 2, where, how } });
        const { bytes, isReset } = await rawPost(host.port, STREAM, { contents: [HELLO] });
        const name = `${how} ${where}`;
        assert.equal(isReset, how === "reset", name);
        assert.equal(bytes.subarray(-5).equals(Buffer.from("0\r\n\r\n")), how === "clean", name);
        assert.ok(bytes.includes("b2") && !bytes.includes("finishReason"), name);
        assert.equal(bytes.includes(0xc3), where !== "between-frames", name);
        assert.equal(bytes.includes("ü"), where === "mid-frame", name);
      }
    }
    host.play({ ...textScript("one", "two"), fault: { kind: "invalid-utf8", afterTokens: 1 } });
    const { bytes } = await rawPost(host.port, STREAM, { contents: [HELLO] });
    assert.equal(bytes.subarray(bytes.indexOf(0xff) + 1, bytes.indexOf(0xff) + 3).toString(), "wo");
    assert.deepEqual(host.violations, []);
  });

  test("a peer that leaves while nothing comes, not even headers, is seen", async () => {
    await using host = await startGeminiHost({ script: { firstTokenMs: 60_000 } });
    const stop = new AbortController();
    const work = ask(host, { config: { abortSignal: stop.signal } }).catch(() => undefined); // The abort below.
    await host.until(() => host.openRequests === 1, "the request");
    stop.abort();
    await work;
    await host.until(() => host.openRequests === 0, "the close");
    assert.equal(host.requests[0]?.state, "closed-by-peer");
  });
});
