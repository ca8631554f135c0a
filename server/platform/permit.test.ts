import assert from "node:assert/strict";
import { test } from "node:test";
import { type AnyPermit, effectKey, type EffectRequest, THIS_MACHINE, underPermit } from "./permit.ts";
import { Permit, type PermitReport, PermitSet, StandingPermit } from "./permit-mint.ts";

const write = (path: string): EffectRequest => ({
  capability: "fs.write",
  resource: { kind: "path", path },
  host: THIS_MACHINE,
});
const run = (...args: string[]): EffectRequest => ({
  capability: "cmd.exec",
  resource: { kind: "argv", executable: "/bin/ls", args, cwd: "/" },
  host: THIS_MACHINE,
});
const get = (origin: string, path: string): EffectRequest => ({
  capability: "net.http",
  resource: { kind: "url", method: "GET", origin, path },
  host: THIS_MACHINE,
});
const bug = { name: "BugError", code: "internal" };

test("a permit is spent once, on its effect alone, and reports the first outcome", () => {
  const reports: PermitReport[] = [];
  const permit = new Permit(write("/a"), (outcome) => reports.push(outcome));
  const others: readonly EffectRequest[] = [
    write("/b"),
    write("/a/b"),
    { ...write("/a"), capability: "fs.read" },
    { ...write("/a"), host: "lab:srv" },
    run("/a"),
  ];
  for (const other of others) assert.throws(() => permit.spend(other), bug);
  const spent = permit.spend(write("/a"));
  assert.throws(() => permit.spend(write("/a")), bug);
  spent.settle({ kind: "done" });
  spent.settle({ kind: "failed", detail: "too late" });
  permit.revoke();
  assert.deepEqual(reports, [{ kind: "done" }]);
});

test("changing the request after the decision changes nothing", () => {
  const args = ["-l"];
  const effect = run(...args);
  const live: EffectRequest = { ...effect, resource: { kind: "argv", executable: "/bin/ls", args, cwd: "/" } };
  const permit = new Permit(live, () => {});
  args.push("/secret");
  assert.throws(() => permit.spend(live), bug);
  permit.spend(run("-l"));
});

test("effects that differ in any part have different keys", () => {
  const effects = [
    run("a", "b"),
    run("a b"),
    run('a","b'),
    run("b", "a"),
    run(),
    write("/a"),
    { ...write("/a"), capability: "fs.read" as const },
    { ...write("/a"), host: "lab:x" as const },
    get("http://a", "/b"),
    get("http://a/b", ""),
    { ...get("http://a", "/b"), resource: { kind: "url" as const, method: "POST", origin: "http://a", path: "/b" } },
  ];
  assert.equal(new Set(effects.map(effectKey)).size, effects.length);
});

test("a set gives out each listed effect once, and takes back what was not used", () => {
  const reports: string[] = [];
  const make = (effect: EffectRequest, name: string) => ({
    effect,
    permit: new Permit(effect, ({ kind }) => reports.push(`${name} ${kind}`)),
  });
  const set = new PermitSet([
    make(write("/a"), "a1"),
    make(write("/a"), "a2"),
    make(write("/b"), "b"),
    make(write("/c"), "c"),
  ]);
  set.take(write("/a")).spend(write("/a")).settle({ kind: "done" });
  set.take(write("/a"));
  const kept = set.take(write("/b"));
  assert.throws(() => set.take(write("/a")), bug);
  assert.throws(() => set.take(write("/x")), bug);
  set[Symbol.dispose]();
  assert.deepEqual(reports, ["a1 done", "a2 unused", "b unused", "c unused"]);
  assert.throws(() => kept.spend(write("/b")), bug);
  assert.throws(() => set.take(write("/c")), bug);
});

test("a standing permit covers a folder and what is below it, and no path that only looks so", () => {
  const standing = new StandingPermit("data", [
    { capability: "fs.write", resource: { kind: "path", path: "/data" } },
    { capability: "fs.read", resource: { kind: "path", path: "/" } },
  ]);
  for (const path of ["/data", "/data/x", "/data/x/y.toml", "/data/..x", "/data/.hidden"]) standing.spend(write(path));
  assert.equal(standing.uses, 5);
  const outside = [
    "/data-evil",
    "/data-evil/x",
    "/dat",
    "/",
    "data/x",
    "/data/../etc/passwd",
    "/data/x/../../etc",
    "/data/..",
    "/data/./x",
    "/data//x",
    "/data/",
    "//data/x",
    "/data/x\0.txt",
    "",
  ];
  for (const path of outside) assert.throws(() => standing.spend(write(path)), bug, path);
  assert.throws(() => standing.spend({ ...write("/data/x"), host: "lab:srv" }), bug);
  assert.throws(() => standing.spend({ ...write("/data/x"), capability: "secret.read" }), bug);
  standing.spend({ ...write("/anything/at all"), capability: "fs.read" });
  assert.throws(() => standing.spend({ ...write("/a/../b"), capability: "fs.read" }), bug);
  assert.equal(standing.uses, 6);
});

test("a standing permit is made for absolute, normal paths only, and later changes of its list do not reach it", () => {
  for (const path of ["data", "/data/", "/data/../etc", ""]) {
    assert.throws(
      () => new StandingPermit("x", [{ capability: "fs.read", resource: { kind: "path", path } }]),
      bug,
      path,
    );
  }
  const grants: { capability: "fs.write"; resource: { kind: "path"; path: string } }[] = [];
  const standing = new StandingPermit("x", grants);
  grants.push({ capability: "fs.write", resource: { kind: "path", path: "/" } });
  assert.throws(() => standing.spend(write("/a")), bug);
});

test("a standing permit covers an origin, an executable or a listener exactly", () => {
  const standing = new StandingPermit("boot", [
    { capability: "net.http", resource: { kind: "url", method: "*", origin: "http://127.0.0.1:11434", path: "" } },
    { capability: "cmd.exec", resource: { kind: "argv", executable: "/bin/ls", args: [], cwd: "/" } },
    { capability: "net.http", resource: { kind: "listener", address: "127.0.0.1:4747" } },
  ]);
  standing.spend(get("http://127.0.0.1:11434", "/api/tags"));
  standing.spend(run("-l"));
  for (const origin of [
    "http://127.0.0.1:114340",
    "http://127.0.0.1",
    "https://127.0.0.1:11434",
    "http://127.0.0.1:11434@evil",
  ]) {
    assert.throws(() => standing.spend(get(origin, "/")), bug, origin);
  }
  assert.throws(
    () =>
      standing.spend({
        capability: "net.http",
        resource: { kind: "listener", address: "0.0.0.0:4747" },
        host: THIS_MACHINE,
      }),
    bug,
  );
});

test("nothing else passes for a permit", async () => {
  const forged = { spend: () => ({ settle: () => {} }), revoke: () => {} };
  // @ts-expect-error -- an object of the same shape lacks the private mark, so the compiler refuses it.
  const accepted: AnyPermit = forged;
  assert.ok(accepted);
  // What the compiler cannot see: an object that inherits from the class has no mark either, and throws when it is spent.
  const inherited: AnyPermit = Object.create(Permit.prototype);
  let acted = false;
  await assert.rejects(
    underPermit(inherited, write("/a"), async () => {
      acted = true;
    }),
    TypeError,
  );
  assert.equal(acted, false);
});

test("an effect under a permit settles as done or failed, whatever happens", async () => {
  const reports: PermitReport[] = [];
  const permit = () => new Permit(write("/a"), (outcome) => reports.push(outcome));
  assert.equal(await underPermit(permit(), write("/a"), async () => 7), 7);
  await assert.rejects(
    underPermit(permit(), write("/a"), async () => {
      throw new Error("disk on fire");
    }),
    /disk on fire/,
  );
  assert.deepEqual(reports, [{ kind: "done" }, { kind: "failed", detail: "disk on fire" }]);
});
