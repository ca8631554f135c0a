import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../base/errors.ts";
import { defaultPaths } from "./paths.ts";

const environment = (variables: Readonly<Record<string, string>>, homeDir = "/home/ada") => ({
  get: (name: string) => variables[name],
  homeDir,
  userName: "ada",
  uid: 1000,
});

test("without XDG variables everything lies under the home folder, and the socket in /tmp", () => {
  assert.deepEqual(defaultPaths(environment({}), {}, 1), {
    configDir: "/home/ada/.config/ghoststack",
    configFile: "/home/ada/.config/ghoststack/ghost.toml",
    wardenFile: "/home/ada/.config/ghoststack/warden.toml",
    dataDir: "/home/ada/.local/share/ghoststack",
    runtimeDir: "/tmp/ghoststack-1000",
    socket: "/tmp/ghoststack-1000/ghostd-1.sock",
    stateDir: "/home/ada/.local/state/ghoststack",
  });
});

test("XDG variables move the folders; relative and empty ones are ignored", () => {
  const moved = defaultPaths(
    environment({
      XDG_CONFIG_HOME: "/c",
      XDG_DATA_HOME: "/d/",
      XDG_RUNTIME_DIR: "/run/user/1000",
      XDG_STATE_HOME: "/s",
    }),
    {},
    2,
  );
  assert.equal(moved.configFile, "/c/ghoststack/ghost.toml");
  assert.equal(moved.dataDir, "/d/ghoststack");
  assert.equal(moved.socket, "/run/user/1000/ghoststack/ghostd-2.sock");
  assert.equal(moved.stateDir, "/s/ghoststack");
  const ignored = defaultPaths(
    environment({ XDG_CONFIG_HOME: "c", XDG_DATA_HOME: "", XDG_RUNTIME_DIR: "./run", XDG_STATE_HOME: "s" }),
    {},
    1,
  );
  assert.deepEqual(ignored, defaultPaths(environment({}), {}, 1));
});

test("flags win, are made absolute and normal, and warden.toml follows --config", () => {
  const flags = { config: "/etc/ghost/../g/my.toml", dataDir: "/data//x/", runtimeDir: "run" };
  const paths = defaultPaths(environment({ XDG_DATA_HOME: "/d" }, ""), flags, 1);
  assert.equal(paths.configFile, "/etc/g/my.toml");
  assert.equal(paths.wardenFile, "/etc/g/warden.toml");
  assert.equal(paths.dataDir, "/data/x");
  assert.equal(paths.runtimeDir, `${process.cwd()}/run`);
  assert.equal(paths.stateDir, undefined, "without a home folder there is none, which is for those to say who need it");
});

test("a socket path that the system cannot hold is refused with advice, counted in bytes", () => {
  const fits = `/${"x".repeat(103 - "/".length - "/ghostd-1.sock".length)}`;
  assert.equal(Buffer.byteLength(defaultPaths(environment({}), { runtimeDir: fits }, 1).socket), 103);
  for (const runtimeDir of [`${fits}x`, fits.replace("xx", "xé")]) {
    assert.throws(
      () => defaultPaths(environment({}), { runtimeDir }, 1),
      (error) =>
        error instanceof UserError && error.code === "folder_unusable" && error.message.includes("--runtime-dir"),
    );
  }
});

test("without a home folder the flags are asked for", () => {
  assert.throws(() => defaultPaths(environment({}, ""), {}, 1), { code: "folder_unusable", message: /--data-dir/ });
});
