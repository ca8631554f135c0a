/** The measuring instruments themselves: a benchmark that cannot see a lost token or a missed budget would report none. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { DeltaReader, RequestMaker } from "./chat-request.ts";
import { CLIENT_DIALECTS, clientRequest } from "./dialect-request.ts";
import { MODEL_NAMES, renderAnswer, STAMP_LENGTH, UPSTREAM_KINDS } from "./dialect-upstream.ts";
import { measure as measureDialects } from "./dialects.ts";
import { figure } from "./figures.ts";
import { HttpConnection } from "./http-connection.ts";
import { cpuTimeUs, rssBytes } from "./proc.ts";
import { median, percentile } from "./statistics.ts";
import { formatNumber, renderTable } from "./table.ts";

test("percentiles and medians are those of the definition", () => {
  const values = Array.from({ length: 100 }, (_, index) => 100 - index);
  assert.equal(percentile(values, 0.5), 50);
  assert.equal(percentile(values, 0.99), 99);
  assert.equal(percentile([7], 0.99), 7);
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(percentile([], 0.5)) && Number.isNaN(median([])));
});

test("a figure knows whether its budget is kept, and one that could not be measured misses it", () => {
  assert.equal(figure(0.8, { unit: "ms", budget: 0.8 }).ok, true);
  assert.equal(figure(0.81, { unit: "ms", budget: 0.8 }).ok, false);
  assert.equal(figure(0.19, { unit: "of direct", budget: 0.2, sense: "at-least" }).ok, false);
  assert.equal(figure(0.3, { unit: "of direct", budget: 0.2, sense: "at-least" }).ok, true);
  assert.deepEqual(figure(null, { unit: "ms", budget: 10 }), { value: null, unit: "ms", budget: 10, ok: false });
  assert.deepEqual(figure(Number.NaN, { unit: "ms" }), { value: null, unit: "ms", budget: null, ok: true });
});

test("deltas are counted and timed however the stream is cut, and lost or doubled ones are seen", () => {
  const delta = (number: number) =>
    `data: {"choices":[{"delta":{"content":"${String(number).padStart(6, "0")} 0000000000000042 "}}]}\n\n`;
  const read = (text: string, size: number) => {
    const times: number[] = [];
    const reader = new DeltaReader((sentAtUs) => times.push(sentAtUs));
    for (let at = 0; at < text.length; at += size) reader.read(Buffer.from(text.slice(at, at + size)));
    return {
      count: reader.count,
      misplaced: reader.misplaced,
      isDone: reader.isDone,
      times: times.length,
      error: reader.error,
    };
  };
  const whole = `${delta(0)}${delta(1)}${delta(2)}data: [DONE]\n\n`;
  for (const size of [1, 7, 10_000]) {
    assert.deepEqual(read(whole, size), { count: 3, misplaced: 0, isDone: true, times: 3, error: undefined });
  }
  const two = delta(0).replace('"}}]', '000001 0000000000000042 "}}]');
  assert.deepEqual(read(`${two}${delta(2)}data: [DONE]\n\n`, 7), read(whole, 7), "two that were written as one");
  assert.ok(read(delta(0) + delta(2), 50).misplaced > 0, "a lost one");
  assert.ok(read(delta(0) + delta(0), 50).misplaced > 0, "a doubled one");
  assert.match(read('data: {"error":{"message":"no"}}\n\n', 5).error ?? "", /no/);
});

test("requests differ from one another and have the length they say", () => {
  const maker = new RequestMaker(
    { port: 1, key: "secret", modelPrefix: "bench/" },
    { model: "t1", promptBytes: 270, stream: true },
  );
  const [first, second] = [maker.make().toString(), maker.make().toString()];
  assert.notEqual(first, second);
  const [head = "", body = ""] = first.split("\r\n\r\n");
  assert.match(head, /authorization: Bearer secret/);
  assert.equal(Number(/content-length: (\d+)/.exec(head)?.[1]), body.length);
  const parsed = JSON.parse(body);
  assert.equal(parsed.model, "bench/t1");
  assert.equal(parsed.stream, true);
  assert.equal(parsed.messages[0].content.length, 270);
});

test("an agent's request is as long, and ends with the prompt, in every dialect", () => {
  for (const dialect of CLIENT_DIALECTS) {
    const { body } = clientRequest(dialect, "agent", { model: "m", prompt: "the prompt", stream: true });
    const text = JSON.stringify(body);
    assert.ok(text.length > 45_000 && text.length < 55_000, `${dialect}: ${text.length}`);
    assert.equal(text.match(/"tool_\d+","description"/g)?.length, 20, dialect);
    assert.ok(text.lastIndexOf("the prompt") > text.lastIndexOf("file-7-1.ts"), dialect);
  }
});

test("deltas of upstreams that speak a client's dialect are read as they come", () => {
  const pairs = [
    ["chat", "compatible"],
    ["responses", "openai"],
    ["messages", "anthropic"],
    ["gemini", "gemini"],
    ["ollama", "ollama"],
  ] as const;
  assert.equal(pairs.length, UPSTREAM_KINDS.length);
  for (const [dialect, kind] of pairs) {
    const { head, delta, stampAt, end } = renderAnswer(kind, `${MODEL_NAMES[kind]}-t3`, "");
    const stamped = (number: number) => {
      const frame = Buffer.from(delta);
      frame.write(`${String(number).padStart(6, "0")} ${"1".padStart(16, "0")}`, stampAt, STAMP_LENGTH);
      return frame;
    };
    const times: number[] = [];
    const reader = new DeltaReader((sentAtUs) => times.push(sentAtUs), dialect);
    for (const bytes of [head, stamped(0), Buffer.concat([stamped(1), stamped(2)]), end]) reader.read(bytes);
    const { count, misplaced, isDone, alone, error } = reader;
    assert.deepEqual({ count, misplaced, isDone, alone, error, times }, { ...READ, times: [1, 1, 1] }, dialect);
  }
});
const READ = { count: 3, misplaced: 0, isDone: true, alone: 1, error: undefined };

test("what pairs of dialects cost is measured from end to end", {
  skip: process.platform !== "linux" && "reads /proc",
}, async () => {
  const args = ["--brief", "--clients", "responses,ollama", "--upstreams", "anthropic,gemini"];
  const { problems, tables, figures } = await measureDialects(args);
  assert.deepEqual(problems, []);
  assert.deepEqual(
    tables.at(-1)?.rows.map(([name]) => name),
    ["chat → compatible", "responses → anthropic", "responses → gemini", "ollama → anthropic", "ollama → gemini"],
  );
  for (const [name, { value }] of Object.entries(figures)) assert.equal(typeof value, "number", name);
  assert.equal(figures["lost_deltas"]?.value, 0);
});

test("the bare client reads answers by length and in chunks, in whatever pieces they come", async () => {
  const answers = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nA\r\nlo, world!\r\n0\r\n\r\n",
  ];
  const server = createServer({ noDelay: true }, (socket) => {
    let next = 0;
    socket.on("data", () => {
      const answer = answers[next % answers.length] ?? "";
      next += 1;
      const sendFrom = (at: number) => {
        socket.write(answer.slice(at, at + 3), () => {
          if (at + 3 < answer.length) setImmediate(sendFrom, at + 3);
        });
      };
      sendFrom(0);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const connection = new HttpConnection(address.port);
  const ask = () =>
    new Promise<string>((resolve, reject) => {
      let text = "";
      connection.send(Buffer.from("GET"), {
        onHead: (status) => {
          text += `${status} `;
        },
        onBody: (chunk) => {
          text += chunk.toString();
        },
        onEnd: () => resolve(text),
        onError: reject,
      });
    });
  for (const expected of ["200 hello", "429 ", "200 hello, world!", "200 hello"]) assert.equal(await ask(), expected);
  connection.destroy();
  await new Promise((resolve) => server.close(resolve));
});

test("a connection that breaks in mid-answer is an error, not an end", async () => {
  const server = createServer((socket) =>
    socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const connection = new HttpConnection(address.port);
  const ended = new Promise((resolve) => {
    connection.send(Buffer.from("GET"), {
      onBody: () => {},
      onEnd: () => resolve("end"),
      onError: (error) => resolve(error.message),
    });
  });
  assert.match(String(await ended), /mid-answer/);
  await new Promise((resolve) => server.close(resolve));
});

test("CPU time grows with work and memory is read", { skip: process.platform !== "linux" && "reads /proc" }, () => {
  const before = cpuTimeUs(process.pid);
  const until = performance.now() + 100;
  while (performance.now() < until) Math.sqrt(until);
  const spentUs = cpuTimeUs(process.pid) - before;
  assert.ok(spentUs > 0, `${spentUs} µs`);
  assert.ok(rssBytes(process.pid) > 10_000_000);
});

test("tables line up", () => {
  const text = renderTable({
    title: "T",
    columns: ["name", "ms"],
    rows: [
      ["a", formatNumber(1.234)],
      ["longer", formatNumber(1234.5)],
    ],
  });
  assert.equal(text, "### T\n\n| name   |    ms |\n|--------|------:|\n| a      |  1.23 |\n| longer | 1,235 |");
  assert.equal(formatNumber(null), "–");
});
