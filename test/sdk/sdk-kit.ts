/** What every SDK is asked to do with every model server, through the real daemon; each SDK's test says only how it does that. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type CaseName, cellOf, UPSTREAMS } from "../dialects/cells.ts";
import { startUpstreams, type Upstream } from "../dialects/upstreams.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";

export const WORDS = ["Grüße ", "aus ", "🦊", "bau."];
export const QUESTION = "Say something.";
export const CITY_SCHEMA = {
  type: "object",
  properties: { city: { type: "string", enum: ["Köln", "Bonn"] } },
  required: ["city"],
  additionalProperties: false,
} as const;

export interface SdkCall {
  readonly name: string;
  readonly arguments: unknown;
}

/** The tools that are offered: `get_weather {city}` and `get_time {}`. */
export const TOOLS = {
  get_weather: {
    description: "The weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
  get_time: {
    description: "The time.",
    parameters: { type: "object", properties: {}, required: [], additionalProperties: false },
  },
} as const;
export const resultOf = (name: string) => `result of ${name}`;

export interface Sdk {
  readonly name: string;
  plain(model: string): Promise<string>;
  stream(model: string): AsyncIterable<string>;
  /** Offers both tools, answers each call with `resultOf`, and asks again: the calls that were made, and the last text. */
  tools(model: string): Promise<{ readonly calls: readonly SdkCall[]; readonly text: string }>;
  /** It asks for objects by a tool that must be called. */
  readonly structuresByTool?: boolean;
  /** The object that the model gave for `CITY_SCHEMA`. */
  structured(model: string): Promise<unknown>;
  /** Reads the first words of a stream and leaves. */
  abort(model: string): Promise<void>;
}

export interface Doors {
  /** `http://127.0.0.1:PORT` */
  readonly root: string;
  readonly key: string;
}

const CITY = { name: "get_weather", arguments: '{"city":"Köln"}' };
/** A chat server's own frames are relayed, and SDKs parse what it says: an empty object. Translated calls may come without a word. */
const nowFrom = ({ name }: Upstream) => ({ name: "get_time", arguments: name === "compatible" ? "{}" : "" });

/** Declares the tests of one SDK. `make` is called once the daemon listens. */
export function testSdk(name: string, make: (doors: Doors) => Sdk): void {
  describe(name, () => declareTests(name, make));
}

interface World {
  readonly upstream: Upstream;
  readonly sdk: Sdk;
}

function declareTests(name: string, make: (doors: Doors) => Sdk): void {
  let upstreams: readonly Upstream[];
  let daemon: TestDaemon;
  let sdk: Sdk;
  before(async () => {
    upstreams = await startUpstreams();
    const config = ["[providers.ollama]\ndiscover = false", ...upstreams.map((upstream) => upstream.config)].join("\n");
    daemon = await startTestDaemon({ config, env: Object.assign({}, ...upstreams.map(({ env }) => env)) });
    sdk = make({ root: daemon.http, key: daemon.modelKey });
  });
  after(async () => {
    await daemon[Symbol.asyncDispose]();
    for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
  });
  for (const upstreamName of UPSTREAMS) {
    const works = (cell: CaseName) => cellOf("chat completions", upstreamName, cell) === "works";
    const declare = (what: string, act: (world: World) => Promise<void>) => {
      test(`${name} and ${upstreamName}: ${what}`, async () => {
        const upstream = upstreams.find((candidate) => candidate.name === upstreamName);
        assert.ok(upstream !== undefined);
        await act({ upstream, sdk });
        assert.deepEqual(upstream.violations, []);
      });
    };
    declare("plain and streamed answers", assertSays);
    if (works("schema")) declare("structured output", assertStructures);
    if (works("tools")) declare("a tool, and parallel tools", assertCalls);
    if (works("cut")) declare("leaving stops the upstream", assertStops);
  }
}

async function assertSays({ upstream, sdk }: World): Promise<void> {
  upstream.play({ kind: "text", deltas: WORDS });
  const plain = await sdk.plain(upstream.model);
  upstream.play({ kind: "text", deltas: WORDS });
  let streamed = "";
  for await (const text of sdk.stream(upstream.model)) streamed += text;
  if (upstream.name !== "embedded") assert.deepEqual([plain, streamed], [WORDS.join(""), WORDS.join("")]);
}

async function assertStructures({ upstream, sdk }: World): Promise<void> {
  upstream.play({ kind: "text", deltas: ['{"city":', '"Köln"}'] });
  if (upstream.name === "embedded" && sdk.structuresByTool === true) {
    await assert.rejects(sdk.structured(upstream.model), /cannot call tools/);
    return;
  }
  const given = await sdk.structured(upstream.model);
  if (upstream.name === "embedded" || upstream.name === "Ollama") assert.ok(typeof given === "object");
  else assert.deepEqual(given, { city: "Köln" });
}

async function assertCalls({ upstream, sdk }: World): Promise<void> {
  const made = [
    { name: "get_weather", arguments: { city: "Köln" } },
    { name: "get_time", arguments: {} },
  ];
  for (const count of [1, 2]) {
    const scripted = [CITY, nowFrom(upstream)].slice(0, count);
    upstream.play({ kind: "calls", calls: scripted }, { kind: "text", deltas: WORDS });
    const { calls, text } = await sdk.tools(upstream.model);
    assert.deepEqual(calls, made.slice(0, count));
    assert.equal(text, WORDS.join(""));
    for (const { name } of calls) assert.ok(upstream.lastBody().includes(resultOf(name)));
  }
}

async function assertStops({ upstream, sdk }: World): Promise<void> {
  upstream.play({ kind: "hang", deltas: WORDS, after: 2 });
  await sdk.abort(upstream.model);
  await upstream.untilLeft();
}
