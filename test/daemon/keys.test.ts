/** Keys handed in by faces, at the daemon itself: used at once, kept through any end of it, told to nobody. A fake server checks the key. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import type { GhostApi } from "../../protocol/ghost-api.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { portOf } from "../fakes/openai-host-fast.ts";
import { startSilentBus } from "../fakes/silent-bus.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type TestFolder, testFolder } from "../support/folder.ts";
import { ask, call, configFor, errorOf } from "../support/http.ts";
import { isFullRun, testRandom } from "../support/random.ts";

const soon = () => AbortSignal.timeout(60_000);
const newKey = () => `sk-${randomBytes(24).toString("base64url")}`;
const fingerprint = (key: string) => createHash("sha256").update(key).digest("hex").slice(-4);
const refusedAs = (code: string) => (error: unknown) => error instanceof GhostApiError && error.code === code;

async function rowOf(api: GhostApi, provider = "up") {
  const { rows } = await api.key.list({}, soon());
  return rows.find((row) => row.provider === provider);
}

interface House extends AsyncDisposable {
  readonly key: string;
  readonly host: OpenAiHost;
  readonly folder: TestFolder;
  readonly config: string;
  start(env?: Readonly<Record<string, string>>): Promise<TestDaemon>;
}

/** A server that wants a key, and a folder for daemons that know it as `up`. */
async function openHouse(more = ""): Promise<House> {
  const key = newKey();
  const host = await startOpenAiHost({ models: ["m"], apiKey: key });
  const folder = testFolder();
  const config = configFor(host.baseUrl, more);
  return {
    key,
    host,
    folder,
    config,
    start: (env = {}) => startTestDaemon({ folder, config, env }),
    async [Symbol.asyncDispose]() {
      await host[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

const chat = (daemon: TestDaemon) => call(daemon, "/v1/chat/completions", { body: ask("up/m") });

test("a key is used from the moment it is stored until it is removed, without a restart", async () => {
  await using house = await openHouse();
  await using daemon = await house.start();
  using face = await daemon.connect();
  const { api } = face;
  assert.deepEqual(await rowOf(api), { provider: "up", source: "none" });
  assert.equal((await api.model.list({}, soon())).providers.find(({ id }) => id === "up")?.state, "refused");

  const { row, note } = await api.key.set({ provider: "up", value: house.key }, soon());
  assert.deepEqual([row.source, row.fingerprint, note], ["file", fingerprint(house.key), undefined]);
  const { models } = await api.model.list({}, soon());
  assert.ok(
    models.some(({ ref }) => ref === "up/m"),
    "the list of models was asked for anew",
  );
  assert.equal((await chat(daemon)).status, 200);

  await api.key.set({ provider: "up", value: newKey() }, soon());
  await api.model.list({}, soon());
  assert.notEqual((await chat(daemon)).status, 200, "the wrong one is used, too");
  await api.key.set({ provider: "up", value: house.key }, soon());
  await api.model.list({}, soon());
  assert.equal((await chat(daemon)).status, 200);

  await api.key.remove({ provider: "up" }, soon());
  await api.model.list({}, soon());
  assert.notEqual((await chat(daemon)).status, 200);
  assert.equal(house.host.requests.at(-1)?.headers.authorization, undefined, "nothing is sent any more");
  await assert.rejects(api.key.remove({ provider: "up" }, soon()), refusedAs("key_missing"));
});

test("a stored key outlives the daemon, closed to others, and is not looked for before it is needed", async () => {
  await using house = await openHouse();
  {
    await using daemon = await house.start();
    using face = await daemon.connect();
    await face.api.key.set({ provider: "up", value: house.key }, soon());
    assert.equal(statSync(`${daemon.dataDir}/provider-keys.json`).mode & 0o777, 0o600);
  }
  const [stateKey = ""] = readdirSync(house.folder.join(".local/state/ghoststack/keys"));
  assert.equal(statSync(house.folder.join(".local/state/ghoststack/keys", stateKey)).mode & 0o777, 0o600);
  await using daemon = await house.start();
  assert.equal((await chat(daemon)).status, 200);
  using face = await daemon.connect();
  assert.equal((await rowOf(face.api))?.fingerprint, fingerprint(house.key));
});

test("a daemon that is killed in the middle of a change has the old key or the new one, and every one it acknowledged", async (context) => {
  const random = testRandom();
  context.diagnostic(`seed ${random.seed}`);
  await using house = await openHouse();
  let accepted: string | undefined;
  for (let round = 0; round < (isFullRun ? 30 : 4); round += 1) {
    const daemon = await house.start();
    const face = await daemon.connect();
    const killAfter = random.below(6);
    let begun: string | undefined;
    for (let count = 0; count <= killAfter; count += 1) {
      begun = newKey();
      const setting = face.api.key.set({ provider: "up", value: begun }, soon());
      if (count === killAfter) {
        // In flight: some turns of the loop later it may be anywhere between the socket and the disk.
        for (let turns = random.below(40); turns > 0; turns -= 1) await new Promise(setImmediate);
        const killed = daemon.kill();
        const outcome = await setting.then(
          () => true,
          () => false,
        );
        if (outcome) accepted = begun;
        await killed;
      } else {
        await setting;
        accepted = begun;
      }
    }
    face[Symbol.dispose]();
    await using after = await house.start();
    using again = await after.connect();
    const { rows, problem } = await again.api.key.list({}, soon());
    assert.equal(problem, undefined);
    const found = rows.find(({ provider }) => provider === "up");
    const possible = [accepted, begun].map((key) => (key === undefined ? undefined : fingerprint(key)));
    assert.ok(
      possible.includes(found?.fingerprint),
      `round ${round}: ${JSON.stringify(found)} of ${possible.join(" or ")}`,
    );
    if (found?.fingerprint === possible[1]) accepted = begun;
    assert.equal(found?.problem, undefined);
  }
});

test("changes of two faces at once end with one of the two keys, whole, and lose nothing of other providers", async () => {
  await using house = await openHouse(
    `[providers.compatible.second]\nbase_url = "http://127.0.0.1:9/v1"\n[providers.compatible.third]\nbase_url = "http://127.0.0.1:9/v1"\n`,
  );
  await using daemon = await house.start();
  using one = await daemon.connect("one");
  using two = await daemon.connect("two");
  const [a, b, second, third] = [newKey(), newKey(), newKey(), newKey()];
  const rounds = Array.from({ length: 10 }, () => [
    one.api.key.set({ provider: "up", value: a }, soon()),
    two.api.key.set({ provider: "up", value: b }, soon()),
    one.api.key.set({ provider: "second", value: second }, soon()),
    two.api.key.set({ provider: "third", value: third }, soon()),
  ]);
  await Promise.all(rounds.flat());
  assert.ok([a, b].map(fingerprint).includes((await rowOf(one.api))?.fingerprint ?? ""));
  assert.equal((await rowOf(two.api, "second"))?.fingerprint, fingerprint(second));
  assert.equal((await rowOf(two.api, "third"))?.fingerprint, fingerprint(third));
});

test("a damaged file is kept aside and reported, and the daemon goes on without stored keys", async () => {
  await using house = await openHouse();
  const file = house.folder.join("data", "ghoststack", "provider-keys.json");
  {
    await using daemon = await house.start();
    using face = await daemon.connect();
    await face.api.key.set({ provider: "up", value: house.key }, soon());
  }
  const damaged = readFileSync(file, "utf8").slice(0, 100);
  writeFileSync(file, damaged);
  await using daemon = await house.start();
  using face = await daemon.connect();
  const { rows, problem } = await face.api.key.list({}, soon());
  assert.equal(rows.find(({ provider }) => provider === "up")?.source, "none");
  const keptAs = /kept as (\S+),/.exec(problem ?? "")?.[1] ?? "";
  assert.equal(readFileSync(keptAs, "utf8"), damaged, problem);
  assert.ok(daemon.logs().some(({ event, level }) => event === "keys.damaged" && level === "error"));
  await face.api.key.set({ provider: "up", value: house.key }, soon());
  assert.equal((await chat(daemon)).status, 200);
});

test("a file that cannot be read fails its providers alone, with the path, and comes back when it can", async () => {
  const named = newKey();
  await using other = await startOpenAiHost({ models: ["m2"], apiKey: named });
  await using house = await openHouse(
    `[providers.compatible.named]\nbase_url = "${other.baseUrl}"\nlocality = "machine"\nkey_env = "NAMED_KEY"\n`,
  );
  const file = house.folder.join("data", "ghoststack", "provider-keys.json");
  mkdirSync(file, { recursive: true });
  await using daemon = await house.start({ NAMED_KEY: named });
  using face = await daemon.connect();
  const { models, providers } = await face.api.model.list({ refresh: true }, soon());
  const up = providers.find(({ id }) => id === "up");
  assert.deepEqual([up?.state, up?.problem?.includes(file)], ["refused", true], JSON.stringify(up));
  assert.ok(models.some(({ ref }) => ref === "named/m2"));
  assert.equal((await call(daemon, "/v1/chat/completions", { body: ask("named/m2") })).status, 200);
  const list = await face.api.key.list({}, soon());
  assert.ok(list.problem?.includes(file));
  assert.deepEqual(
    list.rows
      .filter(({ provider }) => provider === "named" || provider === "up")
      .map(({ provider, source, problem }) => [provider, source, problem?.includes(file) ?? false]),
    [
      ["named", "environment", false],
      ["up", "none", true],
    ],
  );
  await assert.rejects(face.api.key.set({ provider: "up", value: house.key }, soon()), refusedAs("folder_unusable"));
  const verdict = await face.api.key.test({ provider: "up" }, soon());
  assert.deepEqual([verdict.ok, verdict.detail.includes(file)], [false, true], verdict.detail);
  rmSync(file, { recursive: true });
  await face.api.key.set({ provider: "up", value: house.key }, soon());
  assert.equal((await chat(daemon)).status, 200);
});

test("a key that is tested is told what is wrong in plain words", async () => {
  await using open = await startOpenServer();
  await using house = await openHouse(
    `[providers.compatible.open]\nbase_url = "${open.baseUrl}"\n[providers.compatible.gone]\nbase_url = "http://127.0.0.1:9/v1"\n`,
  );
  await using daemon = await house.start();
  using face = await daemon.connect();
  const { api } = face;
  const verdict = async (provider: string, value?: string) => {
    if (value !== undefined) await api.key.set({ provider, value }, soon());
    const { ok, detail, latencyMs } = await api.key.test({ provider }, soon());
    assert.ok(latencyMs >= 0 && latencyMs < 60_000);
    return `${ok ? "yes" : "no"}: ${detail}`;
  };
  assert.match(await verdict("up"), /^no: up has no key yet: `ghost keys set up`/);
  assert.match(await verdict("up", newKey()), /^no: up does not take the key: it is wrong.*401/);
  assert.match(await verdict("up", house.key), /^yes: up takes the key and lists 1 model$/);
  assert.match(await verdict("open", newKey()), /^yes: open answers.*as it does without a key/);
  assert.match(await verdict("gone", newKey()), /^no: nothing listens at the address of gone .*ECONNREFUSED/);
  house.host.play(() => ({ status: { code: 429, body: "json", message: "quota", errorCode: "insufficient_quota" } }));
  assert.match(await verdict("up"), /^no: up knows the key, and its account has no credit/);
  await assert.rejects(api.key.test({ provider: "upp" }, soon()), (error) => {
    assert.ok(error instanceof GhostApiError);
    assert.equal(error.code, "provider_unknown");
    assert.match(error.message, /Did you mean `up`\?.*These do: .*gone.*open.*up/);
    return true;
  });
});

/** Lists its models to anybody. */
async function startOpenServer(): Promise<AsyncDisposable & { readonly baseUrl: string }> {
  const server = createServer((_request, response) => response.end(JSON.stringify({ data: [{ id: "m" }] })));
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    baseUrl: `http://127.0.0.1:${portOf(server)}/v1`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

const REFUSED: readonly [what: string, provider: string, value: string][] = [
  ["with a space", "up", "sk-secret-part and more"],
  ["with a line break", "up", "sk-secret-part\nsk-secret-more"],
  ["too short", "up", "sk-secr"],
  ["too long", "up", `sk-secret-part${"x".repeat(10_000)}`],
  ["of the daemon's own face", "up", "ghost-face-secret-part-0123456789"],
  ["in the provider's place", "sk-secret-part-0123456789abcdef0123456789", "sk-secret-part"],
  ["for nobody", "nobody", "sk-secret-part-0123"],
];
test("a key that is refused is repeated nowhere", async () => {
  await using house = await openHouse('[log]\nlevel = "debug"\n');
  await using daemon = await house.start();
  using face = await daemon.connect();
  for (const [what, provider, value] of REFUSED) {
    await assert.rejects(face.api.key.set({ provider, value }, soon()), (error) => {
      assert.ok(error instanceof GhostApiError, what);
      assert.match(error.code, /^(invalid_params|provider_unknown)$/, what);
      assert.doesNotMatch(JSON.stringify([error.message, error.details]), /secr/, what);
      return true;
    });
  }
  assert.doesNotMatch(JSON.stringify(daemon.logs()) + daemon.stderr(), /secret-part/);
  assert.equal((await rowOf(face.api))?.source, "none");
});

test("our own model key in OPENAI_API_KEY, where `ghost env` puts it, is never sent to OpenAI", async () => {
  await using host = await startOpenAiHost({ models: ["gpt-5"] });
  using folder = testFolder();
  const config = `[providers.ollama]\ndiscover = false\n[providers.openai]\nbase_url = "${host.baseUrl}"\n`;
  const look = async (key: string) => {
    await using daemon = await startTestDaemon({ folder, config, env: { OPENAI_API_KEY: key } });
    using face = await daemon.connect();
    await face.api.model.list({ refresh: true }, soon());
    return { modelKey: daemon.modelKey, row: await rowOf(face.api, "openai") };
  };
  const key = newKey();
  const { modelKey, row } = await look(key);
  assert.deepEqual([row?.source, row?.variable], ["environment", "OPENAI_API_KEY"]);
  assert.ok(host.requests.some(({ headers }) => headers.authorization === `Bearer ${key}`));
  const before = host.requests.length;
  assert.equal((await look(modelKey)).row?.source, "none");
  assert.equal(host.requests.length, before);
});

test("a session bus that hangs delays what needs the keyring, for a bounded time, and nobody else", async () => {
  await using house = await openHouse();
  await using bus = await startSilentBus(house.folder.join("bus"));
  await using daemon = await house.start({ DBUS_SESSION_BUS_ADDRESS: bus.address });
  using face = await daemon.connect();
  const setting = face.api.key.set({ provider: "up", value: house.key }, soon());
  await bus.waiting();
  const children = childrenOf(daemon.pid);
  assert.equal(children.length, 1, "the keyring is asked in a process of its own");
  for (const pid of children) {
    for (const name of ["environ", "cmdline"])
      assert.ok(!readFileSync(`/proc/${pid}/${name}`, "latin1").includes(house.key), name);
  }
  assert.equal((await call(daemon, "/healthz", { key: null })).status, 200);
  assert.equal((await face.api.daemon.status({}, soon())).pid, daemon.pid);
  const { row } = await setting;
  assert.equal(row.source, "file");
  await bus.left();
  assert.equal((await chat(daemon)).status, 200);
});

test("a daemon that is killed while the keyring hangs leaves no process behind", async () => {
  await using house = await openHouse();
  await using bus = await startSilentBus(house.folder.join("bus"));
  const daemon = await house.start({ DBUS_SESSION_BUS_ADDRESS: bus.address });
  const face = await daemon.connect();
  face.api.key.set({ provider: "up", value: house.key }, soon()).catch(() => {}); // Its daemon is about to die.
  await bus.waiting();
  await daemon.kill();
  await bus.left();
  face[Symbol.dispose]();
});

test("a daemon without stored keys never asks for the keyring", async () => {
  await using house = await openHouse();
  await using bus = await startSilentBus(house.folder.join("bus"));
  await using daemon = await house.start({ DBUS_SESSION_BUS_ADDRESS: bus.address });
  using face = await daemon.connect();
  await face.api.model.list({ refresh: true }, soon());
  await face.api.key.list({}, soon());
  assert.ok(errorOf(await chat(daemon)).message.length > 0);
  assert.equal(bus.clients, 0);
  assert.deepEqual(childrenOf(daemon.pid), []);
});

/** The processes whose parent this is (proc(5)). */
function childrenOf(pid: number): readonly number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean).map(Number),
  );
}
