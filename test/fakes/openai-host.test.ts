/** The fake host is driven by the official client, so that it is known to speak as the real one does; its faults are checked on raw sockets. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { type OpenAiHost, startOpenAiHost } from "./openai-host.ts";
import type { Script } from "./openai-host-script.ts";

const MODEL = "test-model";
const HELLO = [{ role: "user", content: "Say hello" }] as const;

function client(host: OpenAiHost, apiKey = "none"): OpenAI {
  return new OpenAI({ baseURL: host.baseUrl, apiKey, maxRetries: 0 });
}

async function streamText(host: OpenAiHost): Promise<{ text: string; finishReason: string | null; usage: unknown }> {
  const stream = await client(host).chat.completions.create({
    model: MODEL,
    messages: [...HELLO],
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let finishReason: string | null = null;
  let usage: unknown;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    finishReason = chunk.choices[0]?.finish_reason ?? finishReason;
    usage = chunk.usage ?? usage;
  }
  return { text, finishReason, usage };
}

/** Sends one streamed request on a raw socket and returns every byte until the end, and whether that end was a reset. */
async function rawStream(host: OpenAiHost): Promise<{ bytes: Buffer; isReset: boolean }> {
  const body = JSON.stringify({ model: MODEL, messages: HELLO, stream: true });
  const socket = connect(host.port, "127.0.0.1");
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: fake\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  const chunks: Buffer[] = [];
  let isReset = false;
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", (error) => {
    isReset = "code" in error && error.code === "ECONNRESET";
  });
  await new Promise((resolve) => socket.once("close", resolve)); // `once` would reject at the reset.
  return { bytes: Buffer.concat(chunks), isReset };
}

describe("healthy answers", () => {
  test("a chat answer carries text, finish reason and usage", async () => {
    await using host = await startOpenAiHost({ script: { tokens: ["Hel", "lo"] } });
    const answer = await client(host).chat.completions.create({ model: MODEL, messages: [...HELLO] });
    assert.equal(answer.choices[0]?.message.content, "Hello");
    assert.equal(answer.choices[0]?.finish_reason, "stop");
    assert.equal(answer.usage?.completion_tokens, 2);
    assert.deepEqual(host.violations, []);
    assert.equal(host.requests[0]?.state, "finished");
  });

  test("a stream carries the same text, and usage only where it was asked for", async () => {
    await using host = await startOpenAiHost({ script: { tokens: ["Hé", "llo 🦀"] } });
    const { text, finishReason, usage } = await streamText(host);
    assert.equal(text, "Héllo 🦀");
    assert.equal(finishReason, "stop");
    assert.ok(typeof usage === "object" && usage !== null && "completion_tokens" in usage);
    assert.equal(usage.completion_tokens, 2);
    const plain = await client(host).chat.completions.create({ model: MODEL, messages: [...HELLO], stream: true });
    for await (const chunk of plain) assert.equal(chunk.usage ?? null, null);
    assert.equal(host.requests[1]?.tokensSent, 2);
  });

  test("max_tokens shortens an answer and says so", async () => {
    await using host = await startOpenAiHost({ script: { tokens: 10 } });
    const answer = await client(host).chat.completions.create({ model: MODEL, messages: [...HELLO], max_tokens: 3 });
    assert.equal(answer.choices[0]?.message.content, "token0 token1 token2 ");
    assert.equal(answer.choices[0]?.finish_reason, "length");
  });

  test("tool calls arrive whole and in pieces", async () => {
    const toolCalls = [
      { id: "call_1", name: "read_file", arguments: ['{"path":', '"a.ts"}'] },
      { id: "call_2", name: "list", arguments: ["{}"] },
    ];
    await using host = await startOpenAiHost({ script: { toolCalls } });
    const tools = [{ type: "function", function: { name: "read_file", parameters: { type: "object" } } }] as const;
    const whole = await client(host).chat.completions.create({ model: MODEL, messages: [...HELLO], tools: [...tools] });
    assert.equal(whole.choices[0]?.finish_reason, "tool_calls");
    const names = whole.choices[0]?.message.tool_calls?.map((call) => call.type === "function" && call.function.name);
    assert.deepEqual(names, ["read_file", "list"]);
    const runner = client(host).chat.completions.stream({ model: MODEL, messages: [...HELLO], tools: [...tools] });
    const streamed = (await runner.finalChatCompletion()).choices[0]?.message.tool_calls;
    assert.deepEqual(
      streamed?.map((call) => call.type === "function" && call.function.arguments),
      ['{"path":"a.ts"}', "{}"],
    );
    assert.deepEqual(host.violations, []);
  });

  test("completions take a suffix and stream", async () => {
    await using host = await startOpenAiHost({ script: { tokens: ["a", "b"] } });
    const options = { model: MODEL, prompt: "const x = ", suffix: ";\n" };
    assert.equal((await client(host).completions.create(options)).choices[0]?.text, "ab");
    let text = "";
    for await (const chunk of await client(host).completions.create({ ...options, stream: true })) {
      text += chunk.choices[0]?.text ?? "";
    }
    assert.equal(text, "ab");
    assert.deepEqual(host.violations, []);
  });

  test("embeddings are deterministic in both encodings, and models are listed", async () => {
    await using host = await startOpenAiHost({ models: [MODEL, "other"] });
    const create = async (format?: "float") =>
      client(host).embeddings.create({
        model: MODEL,
        input: ["one", "two", "one"],
        dimensions: 16,
        ...(format === undefined ? {} : { encoding_format: format }),
      });
    const [first, second, third] = (await create()).data;
    assert.equal(first?.embedding.length, 16);
    assert.deepEqual(first?.embedding, third?.embedding);
    assert.notDeepEqual(first?.embedding, second?.embedding);
    assert.deepEqual((await create("float")).data[0]?.embedding, first?.embedding);
    const models: string[] = [];
    for await (const model of client(host).models.list()) models.push(model.id);
    assert.deepEqual(models, [MODEL, "other"]);
    assert.deepEqual(host.violations, []);
  });

  test("a stream keeps its meaning in CRLF, with pings, in two data lines, in pieces of 7 bytes", async () => {
    const tokens = ["Grüße ", "aus ", "Köln 🏙"];
    await using host = await startOpenAiHost();
    const wires = [{ lineEnd: "\r\n" }, { commentEvery: 1 }, { multiLineData: true }, { writeBytes: 7 }] as const;
    for (const wire of wires) {
      host.play({ tokens, wire });
      assert.equal((await streamText(host)).text, tokens.join(""), JSON.stringify(wire));
    }
    host.play({ tokens, wire: { lineEnd: "\r\n", commentEvery: 2, multiLineData: true } });
    const { bytes } = await rawStream(host);
    assert.match(bytes.toString(), /: ping 0\r\n\r\ndata: \{"id":"[^"]+",\r\ndata: "object"/);
  });

  test("deltas of 1 MB arrive whole, and a peer that does not read stops the host", async () => {
    const tokens = Array.from({ length: 40 }, (_, index) => String.fromCharCode(97 + (index % 26)).repeat(1_000_000));
    await using host = await startOpenAiHost({ script: { tokens } });
    assert.equal((await streamText(host)).text.length, 40_000_000);
    const stream = await client(host).chat.completions.create({ model: MODEL, messages: [...HELLO], stream: true });
    await host.until(() => (host.requests[1]?.tokensSent ?? 0) > 0, "the first delta of the second answer");
    await assert.rejects(host.until(() => host.requests[1]?.state === "finished", "an end that nobody reads", 300));
    assert.ok((host.requests[1]?.tokensSent ?? 40) < 40);
    stream.controller.abort();
    await host.until(() => host.openRequests === 0, "the peer's leaving");
    assert.equal(host.requests[1]?.state, "closed-by-peer");
  });
});

describe("faults", () => {
  test("statuses carry their bodies and retry-after", async () => {
    await using host = await startOpenAiHost();
    const cases: readonly [NonNullable<Script["status"]>, RegExp][] = [
      [
        { code: 429, body: "json", message: "slow down", retryAfterS: 7, errorCode: "rate_limit_exceeded" },
        /429 slow down/,
      ],
      [{ code: 500, body: "json", message: "broken" }, /500 broken/],
      [{ code: 502, body: "html", message: "Bad Gateway" }, /502.*html/i],
    ];
    for (const [status, expected] of cases) {
      host.playOnce({ status });
      const error: unknown = await streamText(host).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof OpenAI.APIError);
      assert.match(error.message, expected);
      if (status.retryAfterS !== undefined) assert.equal(error.headers?.get("retry-after"), "7");
    }
    assert.equal((await streamText(host)).finishReason, "stop", "what was played once is over");
  });

  test("an in-band error follows the deltas that were sent before it", async () => {
    const fault = { kind: "error-in-band", afterTokens: 2, message: "overloaded" } as const;
    await using host = await startOpenAiHost({ script: { tokens: 5, fault } });
    await assert.rejects(streamText(host), /overloaded/);
    assert.equal(host.requests[0]?.tokensSent, 2);
    assert.equal(host.requests[0]?.state, "faulted");
    const { bytes } = await rawStream(host);
    assert.ok(bytes.includes("token1 ") && !bytes.includes("token2 ") && !bytes.includes("[DONE]"));
    assert.match(bytes.toString(), /0\r\n\r\n$/);
  });

  test("each cut sends exactly what it says and ends as it says", async () => {
    await using host = await startOpenAiHost();
    for (const how of ["reset", "close", "clean"] as const) {
      for (const where of ["between-frames", "mid-frame", "mid-utf8"] as const) {
        host.play({ tokens: ["a1", "b2", "ü3"], fault: { kind: "cut", afterTokens: 2, where, how } });
        const { bytes, isReset } = await rawStream(host);
        const name = `${how} ${where}`;
        assert.equal(isReset, how === "reset", name);
        assert.equal(bytes.subarray(-5).equals(Buffer.from("0\r\n\r\n")), how === "clean", name);
        assert.ok(bytes.includes("b2"), name);
        assert.ok(!bytes.includes("ü"), name);
        assert.equal(bytes.includes(0xc3), where === "mid-utf8", name);
        const frames = bytes.toString("latin1").match(/data: /g)?.length;
        assert.equal(frames, where === "between-frames" ? 3 : 4, name);
      }
    }
    host.play({ fault: { kind: "cut", afterTokens: 0, where: "between-frames", how: "reset" } });
    const { bytes, isReset } = await rawStream(host);
    assert.ok(isReset && bytes.includes("200 OK") && !bytes.includes("data:"), "reset after the headers");
    host.play({ fault: { kind: "reset-before-headers" } });
    assert.deepEqual(await rawStream(host), { bytes: Buffer.alloc(0), isReset: true });
    assert.deepEqual(host.violations, []);
  });

  test("a whole answer can be cut, too", async () => {
    const fault = { kind: "cut", afterTokens: 0, where: "mid-frame", how: "close" } as const;
    await using host = await startOpenAiHost({ script: { fault } });
    await assert.rejects(client(host).chat.completions.create({ model: MODEL, messages: [...HELLO] }));
    assert.equal(host.requests[0]?.state, "faulted");
  });

  test("a clean end without [DONE], and a last frame without its blank line", async () => {
    await using host = await startOpenAiHost({ script: { wire: { omitDone: true } } });
    const withoutDone = (await rawStream(host)).bytes.toString();
    assert.ok(!withoutDone.includes("[DONE]") && withoutDone.endsWith("0\r\n\r\n"));
    host.play({ wire: { unterminatedLastFrame: true } });
    assert.match((await rawStream(host)).bytes.toString(), /data: \[DONE\]\r\n0\r\n\r\n$/);
  });

  test("a byte that is not UTF-8 comes in the delta that was asked for, and the answer goes on", async () => {
    const fault = { kind: "invalid-utf8", afterTokens: 1 } as const;
    await using host = await startOpenAiHost({ script: { tokens: ["one", "two", "three"], fault } });
    const { bytes } = await rawStream(host);
    const at = bytes.indexOf(0xff);
    assert.equal(bytes.subarray(at + 1, at + 3).toString(), "wo");
    assert.ok(bytes.includes("three") && bytes.includes("[DONE]"));
  });

  test("a host that refuses accepts again on the same port", async () => {
    await using host = await startOpenAiHost();
    await host.refuse();
    await assert.rejects(streamText(host), OpenAI.APIConnectionError);
    await host.accept();
    assert.equal((await streamText(host)).finishReason, "stop");
  });
});

describe("what it records", () => {
  test("a peer that leaves is seen in every state, with what had been sent by then", async () => {
    await using host = await startOpenAiHost();
    const leave = async (script: Script, tokens: number, stream: boolean) => {
      host.play(script);
      const number = host.requests.length;
      const stop = new AbortController();
      const options = { model: MODEL, messages: [...HELLO] };
      const work = stream
        ? client(host)
            .chat.completions.create({ ...options, stream: true }, { signal: stop.signal })
            .then(async (chunks) => {
              for await (const chunk of chunks) assert.ok(chunk.id);
            })
        : client(host).chat.completions.create(options, { signal: stop.signal });
      const ended = work.then(
        () => undefined,
        () => undefined, // The abort below: what it looks like to the client is not what is tested.
      );
      await host.until(() => (host.requests[number]?.tokensSent ?? -1) >= tokens, "the state to leave in");
      stop.abort();
      await ended;
      await host.until(() => host.openRequests === 0, "the close");
      const record = host.requests[number];
      assert.equal(record?.state, "closed-by-peer");
      assert.equal(record?.tokensSent, tokens);
      assert.ok(record?.closedAtMs !== undefined);
    };
    await leave({ fault: { kind: "hang-before-headers" } }, 0, true);
    await leave({ firstTokenMs: 60_000 }, 0, false);
    await leave({ tokens: 9, fault: { kind: "hang", afterTokens: 3 } }, 3, true);
    await leave({ tokens: 9, msPerToken: 60_000 }, 1, true);
    await leave({ fault: { kind: "hang", afterTokens: 0 } }, 0, false);
    assert.deepEqual(host.violations, []);
  });

  test("what it does not model is 501 and kept", async () => {
    await using host = await startOpenAiHost({ extraFields: ["known_here"] });
    const post = (path: string, body: object) =>
      fetch(`http://127.0.0.1:${host.port}${path}`, { method: "POST", body: JSON.stringify(body) });
    const healthy = { model: MODEL, messages: HELLO };
    assert.equal((await post("/v1/chat/completions", { ...healthy, known_here: 1 })).status, 200);
    assert.deepEqual(host.violations, []);
    assert.equal((await post("/v1/chat/completions", { ...healthy, new_field: 1 })).status, 501);
    assert.equal((await post("/v1/chat/completions", { model: MODEL, messages: "hello" })).status, 501);
    assert.equal((await post("/v1/responses", healthy)).status, 501);
    assert.equal(host.violations.length, 3);
    assert.match(host.violations[0] ?? "", /new_field/);
  });

  test("unknown models, wrong keys and stream_options without stream are refused as OpenAI refuses them", async () => {
    await using host = await startOpenAiHost({ apiKey: "right" });
    const ask = (key: string, body: object) =>
      client(host, key).chat.completions.create({ model: MODEL, messages: [...HELLO], ...body });
    await assert.rejects(ask("wrong", {}), OpenAI.AuthenticationError);
    await assert.rejects(ask("right", { model: "absent" }), OpenAI.NotFoundError);
    await assert.rejects(ask("right", { stream_options: { include_usage: true } }), OpenAI.BadRequestError);
    assert.equal((await ask("right", {})).choices[0]?.finish_reason, "stop");
    assert.equal(host.requests[0]?.headers.authorization, "Bearer wrong");
    assert.deepEqual(host.violations, []);
  });
});

test("the pre-rendered host for benchmarks numbers its deltas and tells who left", async () => {
  const file = fileURLToPath(new URL("./openai-host.ts", import.meta.url));
  const child = spawn(process.execPath, [file, "--port", "0", "--models", "t3,t100e50,wait"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const [line] = await once(createInterface({ input: child.stdout }), "line");
    const { baseUrl } = JSON.parse(String(line));
    const api = new OpenAI({ baseURL: baseUrl, apiKey: "none", maxRetries: 0 });
    const whole = await api.chat.completions.create({ model: "t3", messages: [...HELLO] });
    assert.equal(whole.choices[0]?.message.content, "token token token ");
    const options = { messages: [...HELLO], stream: true, stream_options: { include_usage: true } } as const;
    const numbers: string[] = [];
    let usage: number | undefined;
    for await (const chunk of await api.chat.completions.create({ model: "t3", ...options, messages: [...HELLO] })) {
      const content = chunk.choices[0]?.delta.content ?? "";
      if (content !== "") numbers.push(content.slice(0, 6));
      usage = chunk.usage?.completion_tokens ?? usage;
    }
    assert.deepEqual(numbers, ["000000", "000001", "000002"]);
    assert.equal(usage, 3);
    const left = await api.chat.completions.create({ model: "t100e50", ...options, messages: [...HELLO] });
    for await (const chunk of left) if ((chunk.choices[0]?.delta.content ?? "").startsWith("000002")) break;
    const stateUrl = baseUrl.replace("/v1", "/bench/state");
    let brokenOff: { tokensSent: number }[] = [];
    while (brokenOff.length === 0) ({ brokenOff } = JSON.parse(await (await fetch(stateUrl)).text()));
    assert.ok((brokenOff[0]?.tokensSent ?? 0) >= 3);
  } finally {
    child.kill();
  }
});
