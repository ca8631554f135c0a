/** Stored keys in a real OS keyring (GNOME Keyring on a session bus of its own): there and nowhere else, and what happens when it is locked or gone. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { GhostApiError } from "../../protocol/errors.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder, type TestFolder } from "../support/folder.ts";
import { ask, call, configFor, errorOf } from "../support/http.ts";
import { type SessionBus, startSessionBus } from "../support/keyring.ts";

const soon = () => AbortSignal.timeout(90_000);
const newKey = () => `sk-${randomBytes(24).toString("base64url")}`;
const chat = (daemon: TestDaemon) => call(daemon, "/v1/chat/completions", { body: ask("up/m") });

interface House extends AsyncDisposable {
  readonly key: string;
  readonly host: OpenAiHost;
  readonly folder: TestFolder;
  readonly bus: SessionBus;
  start(): Promise<TestDaemon>;
}

async function openHouse(): Promise<House> {
  const key = newKey();
  const host = await startOpenAiHost({ models: ["m"], apiKey: key });
  const folder = testFolder();
  const bus = await startSessionBus(folder);
  return {
    key,
    host,
    folder,
    bus,
    start: () =>
      startTestDaemon({
        folder,
        config: configFor(host.baseUrl),
        env: { DBUS_SESSION_BUS_ADDRESS: bus.address },
      }),
    async [Symbol.asyncDispose]() {
      await bus[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

/** Everything that the daemon has written, in one text. */
function filesOf(daemon: TestDaemon): string {
  return readdirSync(daemon.dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name, parentPath }) => readFileSync(`${parentPath}/${name}`, "latin1"))
    .join("\n");
}

test("a key goes into the keyring and nowhere else, is used after a restart, and is gone from it when it is removed", async () => {
  await using house = await openHouse();
  await using _keyring = await house.bus.startKeyring("unlocked");
  {
    await using daemon = await house.start();
    using face = await daemon.connect();
    const { row, note } = await face.api.key.set({ provider: "up", value: house.key }, soon());
    assert.deepEqual([row.source, note], ["keyring", undefined]);
    const [stored, ...more] = await house.bus.credentials("ghoststack");
    assert.deepEqual(more, []);
    assert.equal(stored?.password, house.key);
    assert.match(stored?.account ?? "", /^up@/);
    assert.equal((await chat(daemon)).status, 200);
    const files = filesOf(daemon);
    assert.ok(files.includes('"keyring"'), "the file says where it is");
    assert.ok(!files.includes(house.key) && !files.includes("sealed"));
    assert.ok(
      !readdirSync(house.folder.path, { recursive: true, encoding: "utf8" }).some((name) =>
        /\.local\/state/.test(name),
      ),
    );
  }
  await using daemon = await house.start();
  assert.equal((await chat(daemon)).status, 200);
  using face = await daemon.connect();
  const other = newKey();
  await face.api.key.set({ provider: "up", value: other }, soon());
  assert.deepEqual(
    (await house.bus.credentials("ghoststack")).map(({ password }) => password),
    [other],
  );
  await face.api.key.remove({ provider: "up" }, soon());
  assert.deepEqual(await house.bus.credentials("ghoststack"), []);
  assert.equal((await face.api.key.list({}, soon())).rows.find(({ provider }) => provider === "up")?.source, "none");
});

test("two daemons with folders of their own do not share a key in one keyring", async () => {
  await using house = await openHouse();
  await using _keyring = await house.bus.startKeyring("unlocked");
  await using first = await house.start();
  await using second = await startTestDaemon({
    config: configFor(house.host.baseUrl),
    env: { DBUS_SESSION_BUS_ADDRESS: house.bus.address },
  });
  using one = await first.connect();
  using two = await second.connect();
  await one.api.key.set({ provider: "up", value: house.key }, soon());
  assert.equal((await two.api.key.list({}, soon())).rows.find(({ provider }) => provider === "up")?.source, "none");
  await two.api.key.set({ provider: "up", value: newKey() }, soon());
  await one.api.key.test({ provider: "up" }, soon());
  assert.equal((await chat(first)).status, 200);
  assert.equal((await house.bus.credentials("ghoststack")).length, 2);
});

for (const state of ["locked", "gone"] as const) {
  test(`a keyring that is ${state} is said to be so; a new key is kept in the file, and the old one is removed once it can be`, async () => {
    await using house = await openHouse();
    {
      await using _keyring = await house.bus.startKeyring("unlocked");
      await using daemon = await house.start();
      using face = await daemon.connect();
      await face.api.key.set({ provider: "up", value: house.key }, soon());
    }
    {
      await using _locked = state === "locked" ? await house.bus.startKeyring("locked") : undefined;
      await using daemon = await house.start();
      using face = await daemon.connect();
      const { rows } = await face.api.key.list({}, soon());
      assert.match(rows.find(({ provider }) => provider === "up")?.problem ?? "", /is in the OS keyring, which does/);
      assert.match(errorOf(await chat(daemon)).message, /OS keyring|no model/i);
      const verdict = await face.api.key.test({ provider: "up" }, soon());
      assert.deepEqual([verdict.ok, /cannot be read.*OS keyring/.test(verdict.detail)], [false, true], verdict.detail);
      await assert.rejects(face.api.key.remove({ provider: "up" }, soon()), (error) => {
        assert.ok(error instanceof GhostApiError);
        assert.equal(error.code, "key_unreadable");
        return true;
      });
      const { row, note } = await face.api.key.set({ provider: "up", value: house.key }, soon());
      assert.equal(row.source, "file");
      assert.match(note ?? "", /an earlier key of this provider is still in the OS keyring/);
      assert.equal((await chat(daemon)).status, 200);
    }
    await using _keyring = await house.bus.startKeyring("unlocked");
    await using daemon = await house.start();
    using face = await daemon.connect();
    assert.equal((await house.bus.credentials("ghoststack")).length, 1);
    assert.deepEqual(await face.api.key.remove({ provider: "up" }, soon()), {});
    assert.deepEqual(await house.bus.credentials("ghoststack"), []);
  });
}

test("a keyring that was not unlocked is left in peace, until its owner asks", async () => {
  await using house = await openHouse();
  {
    await using _keyring = await house.bus.startKeyring("unlocked");
    await using daemon = await house.start();
    using face = await daemon.connect();
    await face.api.key.set({ provider: "up", value: house.key }, soon());
  }
  const locked = await house.bus.startKeyring("locked");
  await using daemon = await house.start();
  using face = await daemon.connect();
  const state = async () => {
    const { providers } = await face.api.model.list({ refresh: true }, soon());
    return providers.find(({ id }) => id === "up")?.state;
  };
  assert.equal(await state(), "refused");
  await locked.stop();
  await using _keyring = await house.bus.startKeyring("unlocked");
  assert.equal(await state(), "refused", "it is not asked all the time");
  assert.equal((await face.api.key.test({ provider: "up" }, soon())).ok, true);
  assert.equal(await state(), "ok");
});

test("no process of the daemon has the key in its arguments or its environment while the keyring is asked", async () => {
  await using house = await openHouse();
  await using _keyring = await house.bus.startKeyring("unlocked");
  await using daemon = await house.start();
  using face = await daemon.connect();
  const setting = face.api.key.set({ provider: "up", value: house.key }, soon());
  let looks = 0;
  const isSet = setting.then(() => true);
  while (!(await Promise.race([isSet, new Promise<false>((resolve) => setImmediate(() => resolve(false)))]))) {
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      for (const name of ["cmdline", "environ"]) {
        assert.ok(!readProcess(pid, name).includes(house.key), `${pid} ${name}`);
        looks += 1;
      }
    }
  }
  assert.ok(looks > 0);
});

/** Empty for a process that has ended meanwhile, or is somebody else's. */
function readProcess(pid: string, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "latin1");
  } catch {
    return "";
  }
}
