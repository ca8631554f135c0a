/** The store of keys on real files, with no keyring, and with one that hangs; test/systems/keyring.test.ts has a real one. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startSilentBus } from "../../test/fakes/silent-bus.ts";
import { type TestFolder, testFolder } from "../../test/support/folder.ts";
import type { Clock } from "../base/clock.ts";
import { BugError } from "../base/errors.ts";
import { Secret } from "../base/secret.ts";
import { ManualClock } from "../ghostwarden/manual-clock.ts";
import type { Log, LogFields } from "./log.ts";
import { StandingPermit } from "./permit-mint.ts";
import { environmentSecret, openSecretStore, type SecretStore } from "./secrets.ts";
import { systemClock, systemIds } from "./system-clock.ts";

const KEY = "sk-store-0123456789abcdefghij";
const OTHER = "sk-other-9876543210jihgfedcba";

interface House {
  readonly store: SecretStore;
  readonly file: string;
  readonly keyFolder: string;
  readonly logged: readonly LogFields[];
}

function open(
  folder: TestFolder,
  options: { readonly clock?: Clock; readonly bus?: string; readonly grants?: readonly string[] } = {},
): House {
  const [file, keyFolder] = [folder.join("data", "provider-keys.json"), folder.join("state", "keys")];
  mkdirSync(folder.join("data"), { recursive: true });
  const logged: LogFields[] = [];
  const record = (fields: LogFields) => void logged.push(fields);
  const log: Log = { debug: record, info: record, warn: record, error: record };
  const grants = (options.grants ?? [folder.join("data"), keyFolder]).flatMap((path) =>
    (["fs.read", "fs.write"] as const).map((capability) => ({ capability, resource: { kind: "path", path } as const })),
  );
  const node = { kind: "argv", executable: process.execPath, args: [], cwd: "/" } as const;
  const store = openSecretStore({
    permit: new StandingPermit("keys", [...grants, { capability: "cmd.exec", resource: node }]),
    file,
    keyFolder,
    uid: process.getuid?.() ?? -1,
    nodeExecutable: process.execPath,
    environment: {
      get: (name) => (name === "DBUS_SESSION_BUS_ADDRESS" ? options.bus : undefined),
      homeDir: folder.path,
      userName: "ada",
      uid: process.getuid?.() ?? -1,
    },
    clock: options.clock ?? systemClock,
    ids: systemIds,
    log,
  });
  return { store, file, keyFolder, logged };
}

const valueOf = async (store: SecretStore, name: string) => (await store.get(name))?.secret.reveal();

test("without a keyring a secret is kept sealed, survives its process, is replaced and removed", async () => {
  using folder = testFolder();
  const { store, file } = open(folder);
  assert.deepEqual([await store.get("anthropic"), await store.list()], [undefined, []]);
  assert.deepEqual(readdirSync(folder.join("data")), [], "looking makes nothing");
  assert.deepEqual(await store.set("anthropic", new Secret(KEY)), { place: "file" });
  await store.set("openai", new Secret(OTHER));
  const again = open(folder).store;
  assert.deepEqual([await valueOf(again, "anthropic"), await valueOf(again, "openai")], [KEY, OTHER]);
  await again.set("anthropic", new Secret(OTHER));
  assert.equal(await valueOf(store, "anthropic"), OTHER, "nothing is remembered that the file does not say");
  assert.deepEqual(await store.delete("anthropic"), { existed: true });
  assert.deepEqual(await store.delete("anthropic"), { existed: false });
  const left = await store.list();
  assert.deepEqual(
    left.map(({ name, place }) => [name, place]),
    [["openai", "file"]],
  );
  assert.ok(Math.abs((left[0]?.updatedAtMs ?? 0) - Date.now()) < 60_000);
  assert.doesNotMatch(readFileSync(file, "utf8"), /sk-/);
});

test("the file and its key are readable by their owner alone, in folders apart, and neither is enough", async () => {
  using folder = testFolder();
  const { store, file, keyFolder } = open(folder);
  await store.set("anthropic", new Secret(KEY));
  const [keyName = "", ...more] = readdirSync(keyFolder);
  assert.deepEqual(more, []);
  const keyFile = join(keyFolder, keyName);
  assert.deepEqual([statSync(file).mode & 0o777, statSync(keyFile).mode & 0o777], [0o600, 0o600]);
  assert.equal(statSync(keyFolder).mode & 0o777, 0o700);
  for (const path of [file, keyFile]) assert.ok(!readFileSync(path, "utf8").includes(KEY));
  renameSync(keyFile, `${keyFile}.elsewhere`);
  await assert.rejects(store.get("anthropic"), { code: "key_unreadable" });
  renameSync(`${keyFile}.elsewhere`, keyFile);
  assert.equal(await valueOf(store, "anthropic"), KEY);
});

test("changes that come at once lose nothing: the last one of each name counts", async () => {
  using folder = testFolder();
  const { store } = open(folder);
  const names = Array.from({ length: 20 }, (_, index) => `p${index % 5}`);
  await Promise.all(names.map((name, index) => store.set(name, new Secret(`${KEY}-${index}`))));
  const values = await Promise.all(["p0", "p1", "p2", "p3", "p4"].map((name) => valueOf(store, name)));
  assert.deepEqual(
    values,
    [15, 16, 17, 18, 19].map((index) => `${KEY}-${index}`),
  );
  await Promise.all([store.delete("p0"), store.set("p0", new Secret(KEY)), store.delete("p1")]);
  assert.deepEqual([await valueOf(store, "p0"), await valueOf(store, "p1")], [KEY, undefined]);
});

const DAMAGES: readonly [what: string, damage: (text: string) => string][] = [
  ["cut in the middle", (text) => text.slice(0, text.length / 2)],
  ["empty", () => ""],
  ["of zero bytes", (text) => "\0".repeat(text.length)],
  ["another program's", () => '{"keys": []}'],
];
for (const [what, damage] of DAMAGES) {
  test(`a file that is ${what} is kept aside and reported, and keys can be stored again`, async () => {
    using folder = testFolder();
    const { store, file, logged } = open(folder);
    await store.set("anthropic", new Secret(KEY));
    const damaged = damage(readFileSync(file, "utf8"));
    writeFileSync(file, damaged);
    assert.deepEqual(await Promise.all([store.get("anthropic"), store.list(), store.get("openai")]), [
      undefined,
      [],
      undefined,
    ]);
    const kept = readdirSync(folder.join("data"));
    assert.equal(kept.length, 1, kept.join());
    assert.match(kept[0] ?? "", /^provider-keys\.json\.damaged-\d+$/);
    assert.equal(readFileSync(folder.join("data", kept[0] ?? ""), "utf8"), damaged);
    assert.match(store.problem ?? "", /damaged-\d+, and the keys in it must be stored again/);
    assert.deepEqual(
      logged.map(({ event }) => event),
      ["keys.damaged"],
    );
    await store.set("anthropic", new Secret(OTHER));
    assert.equal(await valueOf(store, "anthropic"), OTHER);
  });
}

test("a file of a newer version is neither read nor replaced", async () => {
  using folder = testFolder();
  const { store, file } = open(folder);
  const newer = '{"version": 2, "something": "else"}';
  writeFileSync(file, newer);
  await assert.rejects(store.get("anthropic"), { code: "folder_unusable", message: /newer version/ });
  await assert.rejects(store.set("anthropic", new Secret(KEY)), { code: "folder_unusable" });
  assert.deepEqual([readFileSync(file, "utf8"), readdirSync(folder.join("data")).length], [newer, 1]);
});

test("a file that cannot be read is said to be so, and left alone", async () => {
  using folder = testFolder();
  const { store, file } = open(folder);
  // Root reads everything: a folder in its place is what nobody can read.
  mkdirSync(file);
  const refusal = { code: "folder_unusable", message: /provider-keys\.json cannot be read/ };
  await assert.rejects(store.get("anthropic"), refusal);
  await assert.rejects(store.list(), refusal);
  await assert.rejects(store.set("anthropic", new Secret(KEY)), refusal);
  await assert.rejects(store.delete("anthropic"), refusal);
  assert.ok(statSync(file).isDirectory());
});

test("a box that was moved to another name does not open there", async () => {
  using folder = testFolder();
  const { store, file } = open(folder);
  await store.set("anthropic", new Secret(KEY));
  await store.set("openai", new Secret(OTHER));
  const content = readFileSync(file, "utf8");
  writeFileSync(
    file,
    content.replace('"anthropic"', '"x"').replace('"openai"', '"anthropic"').replace('"x"', '"openai"'),
  );
  for (const name of ["anthropic", "openai"]) {
    await assert.rejects(store.get(name), { code: "key_unreadable", message: new RegExp(`stored key of ${name}`) });
  }
});

test("a damaged key of the file is kept aside by the next change, which makes a new one", async () => {
  using folder = testFolder();
  const { store, keyFolder } = open(folder);
  await store.set("anthropic", new Secret(KEY));
  const [keyName = ""] = readdirSync(keyFolder);
  writeFileSync(join(keyFolder, keyName), "short");
  await assert.rejects(store.get("anthropic"), { code: "key_unreadable" });
  await store.set("openai", new Secret(OTHER));
  assert.equal(await valueOf(store, "openai"), OTHER);
  await assert.rejects(store.get("anthropic"), { code: "key_unreadable" }, "the new key opens nothing old");
  assert.ok(readdirSync(keyFolder).some((name) => name.includes(".damaged-")));
  assert.match(store.problem ?? "", /damaged/);
  await store.set("anthropic", new Secret(KEY));
  assert.equal(await valueOf(store, "anthropic"), KEY);
});

test("a link in the place of the folder of the key that leads to no folder is refused", async () => {
  using folder = testFolder();
  const { store, keyFolder } = open(folder);
  mkdirSync(folder.join("state"));
  writeFileSync(folder.join("no-folder"), "");
  symlinkSync(folder.join("no-folder"), keyFolder);
  await assert.rejects(store.set("anthropic", new Secret(KEY)), { code: "folder_unusable" });
});

test("nothing is touched that the permit does not cover", async () => {
  using folder = testFolder();
  const { store } = open(folder, { grants: [] });
  await assert.rejects(store.get("anthropic"), BugError);
  await assert.rejects(store.set("anthropic", new Secret(KEY)), BugError);
  assert.deepEqual(readdirSync(folder.join("data")), []);
  const halfway = open(folder, { grants: [folder.join("data")] }).store;
  await assert.rejects(halfway.set("anthropic", new Secret(KEY)), BugError);
});

test("a session bus that hangs costs one bounded wait; its process is ended, and the file takes the key", async () => {
  using folder = testFolder();
  await using bus = await startSilentBus(folder.join("bus"));
  const clock = new ManualClock();
  const { store } = open(folder, { clock, bus: bus.address });
  const setting = store.set("anthropic", new Secret(KEY));
  await bus.waiting();
  assert.equal(bus.clients, 1);
  clock.advance(5_000);
  assert.deepEqual(await setting, { place: "file" });
  await bus.left();
  // Nobody asks again for a minute, so this needs no help from the clock.
  assert.deepEqual(await store.set("openai", new Secret(OTHER)), { place: "file" });
  assert.equal(await valueOf(store, "anthropic"), KEY);
  assert.equal(bus.clients, 0);
  clock.advance(60_000);
  const later = store.set("openai", new Secret(KEY));
  await bus.waiting();
  clock.advance(5_000);
  assert.deepEqual(await later, { place: "file" });
  await bus.left();
});

test("the end of the store ends a process that hangs", async () => {
  using folder = testFolder();
  await using bus = await startSilentBus(folder.join("bus"));
  const { store } = open(folder, { bus: bus.address });
  const setting = store.set("anthropic", new Secret(KEY));
  await bus.waiting();
  await store[Symbol.asyncDispose]();
  await bus.left();
  assert.equal((await setting).place, "file");
});

test("what a file says is in a keyring that is not there cannot be read or removed, and a new key is kept in the file", async () => {
  using folder = testFolder();
  const { store, file } = open(folder);
  await store.set("openai", new Secret(OTHER));
  const content = readFileSync(file, "utf8").replace(
    '"entries": {',
    '"entries": { "anthropic": { "place": "keyring", "updatedAtMs": 1 },',
  );
  writeFileSync(file, content);
  const unreadable = { code: "key_unreadable", message: /OS keyring/ };
  await assert.rejects(store.get("anthropic"), unreadable);
  await assert.rejects(store.delete("anthropic"), unreadable);
  assert.equal((await store.list()).length, 2, "listing needs no keyring");
  const { place, note } = await store.set("anthropic", new Secret(KEY));
  assert.equal(place, "file");
  assert.match(note ?? "", /earlier key of this provider is still in the OS keyring/);
  assert.equal(await valueOf(store, "anthropic"), KEY);
  assert.match((await store.delete("anthropic")).note ?? "", /still in the OS keyring/);
  assert.equal(await valueOf(store, "anthropic"), undefined);
});

test("a key in the environment loses the line break that came with it; an empty one is none", () => {
  const environment = { get: (name: string) => ({ A: `${KEY}\n`, B: " \n" })[name], homeDir: "", userName: "", uid: 0 };
  assert.equal(environmentSecret(environment, "A")?.reveal(), KEY);
  for (const name of ["B", "C"]) assert.equal(environmentSecret(environment, name), undefined);
});
