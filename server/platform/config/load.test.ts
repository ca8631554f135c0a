import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../base/errors.ts";
import { listSettings, loadConfig } from "./load.ts";

const load = (text: string | undefined, overrides = {}) => loadConfig({ text, file: "ghost.toml", overrides });

const DESIGN_EXAMPLE = `# ghost.toml
[providers.anthropic]                     # key: \`ghost keys set anthropic\`
[providers.openai]                        # likewise xai, gemini, copilot
[providers.compatible.lmstudio]           # any OpenAI-compatible server; its models are lmstudio/<model>
base_url = "http://127.0.0.1:1234/v1"
locality = "machine"
[providers.ollama.hosts.ws4090]
url = "http://127.0.0.1:11434"
vram_gib = 24
parallel = 2
num_ctx = { "deepseek-coder-v2" = 32768 }
[providers.ollama.hosts.srv3070]
url = "http://192.0.2.7:11434"
vram_gib = 8
[routing]
weights = { quality = 1.0, cost = 0.6, latency = 0.4 }
auto_swap = false
[routing.intents]
code   = ["ollama/deepseek-coder-v2@ws4090", "anthropic/*", "openai/*"]
crypto = ["xai/*", "anthropic/*"]
[routing.aliases]                         # names of the user's own: tried in order, swapped in mid-answer after a cut
"fast-code" = ["ollama/qwen2.5-coder@ws4090", "openai/gpt-5*"]
[quotas.anthropic]
usd_per_day = 10.0
[context]
store = "sqlite"                          # or "redis://…"
[jarvis.hosts.srv3070]
ssh = "srv"
[jarvis.checks.btrfs]
cron = "*/15 * * * *"
tool = "btrfs.health"
host = "srv3070"
`;

test("without a file every setting has its default", () => {
  const { config, sources, warnings } = load(undefined);
  assert.equal(config.http.port, 4747);
  assert.equal(config.http.max_body_mib, 32);
  assert.equal(config.log.level, "info");
  assert.equal(config.providers.embedded.threads, 1);
  assert.equal(config.providers.embedded.context_size, undefined);
  assert.equal(config.providers.ollama.keep_alive, "10m");
  assert.deepEqual(config.providers.ollama.hosts, {});
  assert.deepEqual(config.routing.weights, { quality: 1, cost: 0.6, latency: 0.4 });
  assert.equal(config.context.store, "sqlite");
  assert.deepEqual(new Set(sources.values()), new Set(["default"]));
  assert.deepEqual(warnings, []);
});

test("a host of Ollama's may say where it is, in one of three words", () => {
  const host = (locality: string) =>
    `[providers.ollama.hosts.box]\nurl = "http://box:11434"\nlocality = "${locality}"\n`;
  for (const locality of ["machine", "lan", "cloud"]) {
    assert.equal(load(host(locality)).config.providers.ollama.hosts["box"]?.locality, locality);
  }
  assert.throws(
    () => load(host("lna")),
    (error) =>
      error instanceof UserError && error.code === "config_invalid" && /ghost\.toml:3:.+`lan`/s.test(error.message),
  );
});

test("the keyless door on Ollama's own port is not taken for an Ollama", () => {
  const discovers = (text: string) => load(text).config.providers.ollama.discover;
  assert.equal(discovers("[http.ollama]\nenabled = true\nport = 11434\n"), false);
  assert.equal(discovers("[http.ollama]\nport = 11434\n"), true);
  assert.equal(discovers("[http.ollama]\nenabled = true\n"), true);
});

test("a model server may listen beside the daemon, but not be it", () => {
  const at = (url: string, more = "") =>
    load(`${more}[providers.compatible.a]\nbase_url = "${url}"\n`).config.providers.compatible["a"]?.base_url;
  for (const url of ["http://127.0.0.1:4748/v1", "http://10.0.0.2:4747/v1", "http://localhost/v1"])
    assert.equal(at(url), url);
  assert.equal(at("http://127.0.0.1:4747/v1", "[http]\nport = 0\n"), "http://127.0.0.1:4747/v1");
  assert.equal(at("http://127.0.0.1:11435/v1"), "http://127.0.0.1:11435/v1");
});

test("the full example parses, and sections of later versions come back as warnings", () => {
  const { config, sources, warnings } = load(DESIGN_EXAMPLE);
  assert.deepEqual(config.providers.ollama.hosts["ws4090"], {
    url: "http://127.0.0.1:11434",
    vram_gib: 24,
    parallel: 2,
    num_ctx: { "deepseek-coder-v2": 32768 },
  });
  assert.equal(config.providers.ollama.hosts["srv3070"]?.parallel, 1);
  assert.equal(config.providers.compatible["lmstudio"]?.locality, "machine");
  assert.deepEqual(config.routing.intents["crypto"], ["xai/*", "anthropic/*"]);
  assert.deepEqual(config.routing.aliases["fast-code"], ["ollama/qwen2.5-coder@ws4090", "openai/gpt-5*"]);
  assert.equal(sources.get("providers.ollama.hosts.ws4090.parallel"), "file");
  assert.equal(sources.get("providers.ollama.hosts.srv3070.parallel"), "default");
  assert.deepEqual(warnings, [
    "ghost.toml:23: [quotas] is not used by this version yet",
    "ghost.toml:27: [jarvis] is not used by this version yet",
  ]);
});

test("a Redis store is accepted with a warning that does not repeat its address", () => {
  const { config, warnings } = load('[context]\nstore = "redis://user:hunter2@lan/0"');
  assert.equal(config.context.store, "sqlite");
  assert.deepEqual(warnings, ["ghost.toml:2: a Redis store (context.store) is not used by this version yet"]);
});

test("a flag wins over the file, and the source of each setting is known", () => {
  const loaded = load("[http]\nport = 1\nmax_body_mib = 8", { port: 0 });
  assert.equal(loaded.config.http.port, 0);
  const settings = new Map(listSettings(loaded).map(({ path, value, source }) => [path, [value, source]]));
  assert.deepEqual(settings.get("http.port"), [0, "flag"]);
  assert.deepEqual(settings.get("http.max_body_mib"), [8, "file"]);
  assert.deepEqual(settings.get("log.level"), ["info", "default"]);
  assert.throws(() => load("", { port: 70000 }), { code: "usage" });
});

test("the settings are frozen to the ground", () => {
  const { config } = load(DESIGN_EXAMPLE);
  const pending: unknown[] = [config];
  let examined = 0;
  for (let value = pending.pop(); value !== undefined; value = pending.pop()) {
    if (typeof value !== "object" || value === null) continue;
    assert.ok(Object.isFrozen(value));
    examined += 1;
    pending.push(...Object.values(value));
  }
  assert.ok(examined > 10);
});

const WRONG: readonly (readonly [text: string, message: string])[] = [
  ["prot = 1", "ghost.toml:1:1: there is no setting prot."],
  ["[htpp]\nport = 1", "ghost.toml:1:2: there is no setting htpp. Did you mean `http`?"],
  ["port = 1", "ghost.toml:1:1: there is no setting port. Did you mean `http.ollama.port` or `http.port`?"],
  ["[http]\nprot = 1", "ghost.toml:2:1: there is no setting http.prot. Did you mean `port`?"],
  ["http.port = 4747\nhttp.prot = 1", "ghost.toml:2:6: there is no setting http.prot. Did you mean `port`?"],
  ["http = { port = 1, prot = 2 }", "ghost.toml:1:20: there is no setting http.prot. Did you mean `port`?"],
  ["[providers.antropic]", "ghost.toml:1:12: there is no setting providers.antropic. Did you mean `anthropic`?"],
  [
    '[providers.ollama.hosts.ws]\nurl = "http://a"\n"keep alive" = 1',
    'ghost.toml:3:1: there is no setting providers.ollama.hosts.ws."keep alive".',
  ],
  ['[http]\nport = "4747"', "ghost.toml:2:8: http.port: expected a whole number from 0 to 65535, found another string"],
  [
    "[http]\nport = 70000",
    "ghost.toml:2:8: http.port: expected a whole number from 0 to 65535, found the number 70000",
  ],
  ["[http]\nport = 1.5", "ghost.toml:2:8: http.port: expected a whole number from 0 to 65535, found the number 1.5"],
  ["http = 3", "ghost.toml:1:8: http: expected a table, found the number 3"],
  ["[[http]]\nport = 1", "ghost.toml:1:1: http: expected a table, found a list"],
  [
    "[providers.embedded]\nenabled = 1",
    "ghost.toml:2:11: providers.embedded.enabled: expected true or false, found the number 1",
  ],
  [
    "[log]\nlevel = 'inof'",
    'ghost.toml:2:9: log.level: expected "debug", "info", "warn" or "error", found another string. Did you mean `info`?',
  ],
  ["[log]\nlevel = 1979-05-27", 'ghost.toml:2:9: log.level: expected "debug", "info", "warn" or "error", found a date'],
  [
    "[providers.ollama.hosts.ws]\nvram_gib = 8",
    "ghost.toml:1:25: providers.ollama.hosts.ws.url is missing: expected an http:// or https:// address without user, query and fragment",
  ],
  [
    "[providers.ollama.hosts.ws]\nurl = 'ws4090:11434'",
    "ghost.toml:2:7: providers.ollama.hosts.ws.url: expected an http:// or https:// address without user, query and fragment, found another string",
  ],
  [
    "[providers.compatible.a]\nbase_url = 'https://me:hunter2@a/v1'",
    "ghost.toml:2:12: providers.compatible.a.base_url: expected an http:// or https:// address without user, query and fragment, found another string",
  ],
  [
    "[providers.ollama]\nkeep_alive = 10",
    'ghost.toml:2:14: providers.ollama.keep_alive: expected a duration like "10m", "1h30m" or "-1m", found the number 10',
  ],
  [
    '[providers.ollama.hosts.ws]\nurl = "http://a"\nnum_ctx = { "qwen.2" = "32k" }',
    'ghost.toml:3:24: providers.ollama.hosts.ws.num_ctx."qwen.2": expected a whole number from 64 to 4194304, found another string',
  ],
  [
    "[routing.intents]\ncode = ['a', 1]",
    "ghost.toml:2:14: routing.intents.code[1]: expected a string, found the number 1",
  ],
  [
    "[routing.aliases]\nfast = []",
    "ghost.toml:2:8: routing.aliases.fast: expected a list of strings with at least one entry, found an empty list",
  ],
  [
    "[routing.aliases]\n'a/b' = ['x']",
    'ghost.toml:2:1: routing.aliases."a/b": a name has at most 64 letters, digits, `.`, `_` and `-`, and is not embedded, ollama or ghost',
  ],
  [
    "[providers.compatible.ollama]\nbase_url = 'http://a'",
    "ghost.toml:1:23: providers.compatible.ollama: a name has at most 64 letters, digits, `.`, `_` and `-`, and is not embedded, ollama or ghost",
  ],
  [
    "[providers.compatible.a]\nbase_url = 'http://a'\napi_key = 'sk-hunter2'",
    'ghost.toml:3:1: providers.compatible.a.api_key: a key is never written into this file. Store it with `ghost keys set`, or put it into an environment variable and write that variable\'s name: key_env = "MY_KEY"',
  ],
  [
    "[providers.anthropic]\nkey = 'sk-hunter2'",
    'ghost.toml:2:1: providers.anthropic.key: a key is never written into this file. Store it with `ghost keys set`, or put it into an environment variable and write that variable\'s name: key_env = "MY_KEY"',
  ],
  [
    "[providers.compatible.a]\nbase_url = 'http://a'\nkey_env = 'sk-hunter2'",
    "ghost.toml:3:11: providers.compatible.a.key_env: expected the name of an environment variable (letters, digits and _), found another string",
  ],
  [
    "[providers.compatible.a]\nbase_url = 'http://localhost:4747/v1'",
    "ghost.toml:2:12: providers.compatible.a.base_url: this is where the daemon itself listens",
  ],
  [
    "[http.ollama]\nenabled = true\n[providers.ollama.hosts.me]\nurl = 'http://127.0.0.1:11435'",
    "ghost.toml:4:7: providers.ollama.hosts.me.url: this is where the daemon itself listens",
  ],
  ["[context]\nstore = 'postgres://x'", 'ghost.toml:2:9: context.store: expected "sqlite", found another string'],
];

test("a wrong setting is named with file, line, column, what was expected and the nearest known name", () => {
  for (const [text, message] of WRONG) {
    assert.throws(
      () => load(text),
      (error) => {
        assert.ok(error instanceof UserError);
        assert.equal(error.code, "config_invalid");
        assert.equal(error.message, message);
        assert.deepEqual(error.details["problems"], [message]);
        assert.ok(!JSON.stringify(error).includes("hunter2"));
        return true;
      },
      text,
    );
  }
});

test("several problems are reported together, in the order of the file", () => {
  assert.throws(() => load("[http]\nport = true\n[log]\nlevle = 1\n[providers.compatible.a]\ntoken = 'x'"), {
    message: "ghost.toml:2:8: http.port: expected a whole number from 0 to 65535, found true (and 3 more)",
    details: {
      file: "ghost.toml",
      line: 2,
      column: 8,
      path: "http.port",
      problems: [
        "ghost.toml:2:8: http.port: expected a whole number from 0 to 65535, found true",
        "ghost.toml:4:1: there is no setting log.levle. Did you mean `level`?",
        "ghost.toml:5:23: providers.compatible.a.base_url is missing: expected an http:// or https:// address without user, query and fragment",
        'ghost.toml:6:1: providers.compatible.a.token: a key is never written into this file. Store it with `ghost keys set`, or put it into an environment variable and write that variable\'s name: key_env = "MY_KEY"',
      ],
    },
  });
});
