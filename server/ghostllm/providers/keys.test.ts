/** Whose key is found where, who learns of changes, and what is never shown; on the real store in a folder. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";
import { type TestFolder, testFolder } from "../../../test/support/folder.ts";
import { Secret } from "../../base/secret.ts";
import { StandingPermit } from "../../platform/permit-mint.ts";
import { openSecretStore } from "../../platform/secrets.ts";
import { systemClock, systemIds } from "../../platform/system-clock.ts";
import { createProviderKeys, type KeySlot, type ProviderKeyring } from "./keys.ts";

const never = new AbortController().signal;
const STORED = "sk-stored-0123456789abcdef";
const NAMED = "sk-named-0123456789abcdefg";
const KNOWN = "sk-known-0123456789abcdefg";

interface World {
  readonly keys: ProviderKeyring;
  readonly redacted: readonly string[];
  readonly file: string;
}

const SLOTS: readonly KeySlot[] = [
  { provider: "gemini", variables: ["GEMINI_API_KEY", "GOOGLE_API_KEY"] },
  { provider: "up", keyEnv: "UP_KEY", variables: [] },
  { provider: "both", keyEnv: "UP_KEY", variables: ["GEMINI_API_KEY"] },
];

function open(folder: TestFolder, variables: Readonly<Record<string, string>> = {}, slots = SLOTS): World {
  const [data, keyFolder] = [folder.join("data"), folder.join("state")];
  mkdirSync(data, { recursive: true });
  const redacted: string[] = [];
  const file = folder.join("data", "provider-keys.json");
  const environment = {
    get: (name: string) => variables[name],
    homeDir: folder.path,
    userName: "ada",
    uid: process.getuid?.() ?? -1,
  };
  const grants = [data, keyFolder].flatMap((path) =>
    (["fs.read", "fs.write"] as const).map((capability) => ({ capability, resource: { kind: "path", path } as const })),
  );
  const silent = { debug() {}, info() {}, warn() {}, error() {} };
  const store = openSecretStore({
    permit: new StandingPermit("keys", grants),
    file,
    keyFolder,
    uid: environment.uid,
    nodeExecutable: process.execPath,
    environment,
    clock: systemClock,
    ids: systemIds,
    log: silent,
  });
  const keys = createProviderKeys({ store, environment, redact: (text) => redacted.push(text) });
  for (const slot of slots) keys.declare(slot);
  return { keys, redacted, file };
}

/** What is in the environment, what is stored, and what each provider then sends. */
const ORDER: readonly [
  what: string,
  variables: Readonly<Record<string, string>>,
  stored: boolean,
  provider: string,
  expected: readonly [value: string, source: string, variable?: string] | undefined,
][] = [
  ["nothing at all", {}, false, "gemini", undefined],
  ["a well-known variable", { GEMINI_API_KEY: KNOWN }, false, "gemini", [KNOWN, "environment", "GEMINI_API_KEY"]],
  ["the second well-known", { GOOGLE_API_KEY: KNOWN }, false, "gemini", [KNOWN, "environment", "GOOGLE_API_KEY"]],
  ["a stored key before a well-known one", { GEMINI_API_KEY: KNOWN }, true, "gemini", [STORED, "file"]],
  ["the named variable before a stored key", { UP_KEY: NAMED }, true, "up", [NAMED, "environment", "UP_KEY"]],
  ["a named variable that is not set", {}, true, "up", [STORED, "file"]],
  [
    "the named variable before a well-known one",
    { UP_KEY: NAMED, GEMINI_API_KEY: KNOWN },
    false,
    "both",
    [NAMED, "environment", "UP_KEY"],
  ],
  ["a key with a line break behind it", { UP_KEY: `${NAMED}\n` }, false, "up", [NAMED, "environment", "UP_KEY"]],
  ["a face credential in a named variable", { UP_KEY: `ghost-face-${NAMED}` }, false, "up", undefined],
  ["our own key where OpenAI's is looked for", { GEMINI_API_KEY: `ghost-model-${KNOWN}` }, false, "gemini", undefined],
  [
    "the next variable behind our own key",
    { GEMINI_API_KEY: `ghost-model-${KNOWN}`, GOOGLE_API_KEY: KNOWN },
    false,
    "gemini",
    [KNOWN, "environment", "GOOGLE_API_KEY"],
  ],
  [
    "another daemon's key that is named",
    { UP_KEY: `ghost-model-${NAMED}` },
    false,
    "up",
    [`ghost-model-${NAMED}`, "environment", "UP_KEY"],
  ],
];
for (const [what, variables, stored, provider, expected] of ORDER) {
  test(`${what}: ${expected === undefined ? "no key" : (expected[2] ?? "the stored key")}`, async () => {
    using folder = testFolder();
    const { keys, redacted } = open(folder, variables);
    if (stored) await keys.set(provider, new Secret(STORED));
    const found = await keys.find(provider, never);
    const seen =
      found === undefined
        ? undefined
        : [found.secret.reveal(), found.source, found.variable].slice(0, expected?.length);
    assert.deepEqual(seen, expected);
    assert.equal((await keys.find(provider, never))?.secret.reveal(), expected?.[0], "the same the second time");
    if (expected !== undefined) assert.ok(redacted.includes(expected[0]), "the log knows it");
    assert.doesNotMatch(inspect([found, keys], { depth: 9 }) + JSON.stringify(found ?? null), /sk-/);
  });
}

test("a variable that holds a whole file is said to hold no key", async () => {
  using folder = testFolder();
  const { keys } = open(folder, { UP_KEY: "{\n  sk-secret\n}" });
  await assert.rejects(keys.find("up", never), (error) => {
    assert.ok(error instanceof Error);
    assert.match(error.message, /UP_KEY holds something that cannot be a key/);
    assert.doesNotMatch(error.message, /sk-secret/);
    return true;
  });
});

test("our own key, which `ghost env` put where the user's setting points, is sent to nobody", async () => {
  using folder = testFolder();
  const slots = [{ provider: "openai", keyEnv: "OPENAI_API_KEY", variables: ["OPENAI_API_KEY"] }];
  const { keys } = open(folder, { OPENAI_API_KEY: `ghost-model-${KNOWN}` }, slots);
  assert.equal(await keys.find("openai", never), undefined);
  await keys.set("openai", new Secret(STORED));
  assert.equal((await keys.find("openai", never))?.secret.reveal(), STORED);
});

test("a new key, another one and none are seen by the next request, and announced", async () => {
  using folder = testFolder();
  const { keys } = open(folder, { GOOGLE_API_KEY: KNOWN });
  const changed: string[] = [];
  const listening = keys.onChange((provider) => changed.push(provider));
  const value = async () => (await keys.find("gemini", never))?.secret.reveal();
  assert.equal(await value(), KNOWN);
  await keys.set("gemini", new Secret(STORED));
  assert.equal(await value(), STORED);
  await keys.set("gemini", new Secret(NAMED));
  assert.equal(await value(), NAMED);
  const { note } = await keys.remove("gemini");
  assert.match(note ?? "", /GOOGLE_API_KEY is used from now on/);
  assert.equal(await value(), KNOWN);
  assert.deepEqual(changed, ["gemini", "gemini", "gemini"]);
  listening[Symbol.dispose]();
  await keys.set("gemini", new Secret(STORED));
  assert.equal(changed.length, 3);
});

test("a look that began before a change does not bring the old key back", async () => {
  using folder = testFolder();
  const { keys } = open(folder);
  await keys.set("up", new Secret(STORED));
  const looks = [keys.find("up", never), keys.set("up", new Secret(NAMED)), keys.find("up", never)];
  await Promise.all(looks);
  assert.equal((await keys.find("up", never))?.secret.reveal(), NAMED);
});

test("a stored key that cannot be read is an error, and no other key takes its place until it can", async () => {
  using folder = testFolder();
  const { keys, file } = open(folder, { GEMINI_API_KEY: KNOWN });
  await keys.set("gemini", new Secret(STORED));
  const content = readFileSync(file);
  rmSync(file);
  mkdirSync(file);
  const { keys: fresh } = open(folder, { GEMINI_API_KEY: KNOWN });
  await assert.rejects(fresh.find("gemini", never), { code: "key_unreadable", message: /cannot be read/ });
  assert.equal((await open(folder, { UP_KEY: NAMED }).keys.find("up", never))?.secret.reveal(), NAMED, "never looked");
  rmSync(file, { recursive: true });
  writeFileSync(file, content);
  assert.equal((await fresh.find("gemini", never))?.secret.reveal(), STORED, "a failure is not remembered");
});

test("the list says where each key comes from, and nothing of the key but four digits of its hash", async () => {
  using folder = testFolder();
  const { keys } = open(folder, { UP_KEY: NAMED });
  await keys.set("gemini", new Secret(STORED));
  const { note } = await keys.set("up", new Secret(STORED));
  assert.match(note ?? "", /not used: `key_env` names the environment variable UP_KEY/);
  const digits = (text: string) => createHash("sha256").update(text).digest("hex").slice(-4);
  const { keys: rows, problem } = await keys.list(never);
  const [both, gemini, up] = rows;
  assert.equal(problem, undefined);
  assert.deepEqual(both, {
    provider: "both",
    source: "environment",
    variable: "UP_KEY",
    fingerprint: digits(NAMED),
  });
  assert.deepEqual([gemini?.provider, gemini?.source, gemini?.fingerprint], ["gemini", "file", digits(STORED)]);
  assert.ok(Math.abs((gemini?.updatedAtMs ?? 0) - Date.now()) < 60_000);
  assert.deepEqual([up?.source, up?.variable, up?.updatedAtMs], ["environment", "UP_KEY", undefined]);
  assert.match(up?.note ?? "", /not used/);
  assert.doesNotMatch(JSON.stringify(rows), /sk-/);
});

test("what was stored for a provider that is gone is listed and can be removed", async () => {
  using folder = testFolder();
  const { keys, file } = open(folder);
  await keys.set("up", new Secret(STORED));
  const { keys: before } = open(folder, {}, SLOTS.slice(0, 1));
  const row = (await before.list(never)).keys.find(({ provider }) => provider === "up");
  assert.deepEqual([row?.source, row?.note], ["file", "no provider of this name is set up"]);
  await before.remove("up");
  assert.doesNotMatch(readFileSync(file, "utf8"), /"up"/);
  await assert.rejects(before.remove("up"), { code: "provider_unknown" });
});

test("a name that no provider has is refused with the nearest one, before anything is stored", async () => {
  using folder = testFolder();
  const { keys } = open(folder);
  const unknown = { code: "provider_unknown", message: /no provider "gemnini" takes a key\. Did you mean `gemini`\?/ };
  await assert.rejects(keys.set("gemnini", new Secret(STORED)), unknown);
  await assert.rejects(keys.find("gemnini", never), unknown);
  await assert.rejects(keys.remove("gemnini"), unknown);
  await assert.rejects(keys.remove("gemini"), { code: "key_missing", message: /no key of gemini is stored$/ });
});

test("texts from servers are cleaned of every key that was handed out, however it is echoed", async () => {
  using folder = testFolder();
  const odd = 'sk+odd/"quoted"\\=0123456789';
  const { keys, redacted } = open(folder, { UP_KEY: odd });
  await keys.set("gemini", new Secret(STORED));
  await keys.find("up", never);
  const echo = [odd, JSON.stringify({ odd }), `?key=${encodeURIComponent(odd)}`, `Bearer ${STORED}`].join(" | ");
  const cleaned = keys.clean(echo);
  assert.doesNotMatch(cleaned, /sk[+%-]|quoted|0123/);
  assert.equal(cleaned.match(/\[secret\]/g)?.length, 4);
  assert.ok(redacted.includes(JSON.stringify(odd).slice(1, -1)), "as it stands in a line of the log");
});

test("a key that begins with another is blanked whole", async () => {
  using folder = testFolder();
  const { keys } = open(folder);
  for (const key of [STORED.slice(0, 12), STORED]) await keys.set("gemini", new Secret(key));
  assert.equal(keys.clean(`wrong key: ${STORED}, ${STORED.slice(0, 12)}`), "wrong key: [secret], [secret]");
});

test("a wait that is aborted ends at once, and the look goes on for the next", async () => {
  using folder = testFolder();
  const { keys } = open(folder);
  await open(folder).keys.set("up", new Secret(STORED));
  await assert.rejects(keys.find("up", AbortSignal.abort()), { code: "cancelled" });
  assert.equal((await keys.find("up", never))?.secret.reveal(), STORED);
});
