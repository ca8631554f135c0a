import assert from "node:assert/strict";
import { test } from "node:test";
import { type AccessRequest, type Audience, createAccessControl } from "./access.ts";

const keys = { model: "ghost-model-0123456789", face: "ghost-face-0123456789" };
const access = createAccessControl({ keys, port: () => 4747 });
const request = (more: Partial<AccessRequest>): AccessRequest => ({
  host: "127.0.0.1:4747",
  origin: undefined,
  authorization: undefined,
  apiKey: undefined,
  hasKeyInAddress: false,
  ...more,
});

const cases: readonly [name: string, request: Partial<AccessRequest>, audience: Audience, code: string | undefined][] =
  [
    ["an open route needs no key", {}, "none", undefined],
    ["the model key opens the model APIs", { authorization: `Bearer ${keys.model}` }, "model", undefined],
    ["x-api-key works too", { apiKey: keys.model }, "model", undefined],
    ["the face credential opens a face's route", { authorization: `bearer ${keys.face}` }, "face", undefined],
    ["the model key never opens a face's route", { authorization: `Bearer ${keys.model}` }, "face", "wrong_audience"],
    ["nor the face credential the model APIs", { authorization: `Bearer ${keys.face}` }, "model", "wrong_audience"],
    ["a key in the address", { apiKey: keys.model, hasKeyInAddress: true }, "model", "unauthenticated"],
    ["an open route does not look for one", { hasKeyInAddress: true }, "none", undefined],
    [
      "another provider's key beside ours does not matter",
      { apiKey: "sk-other", authorization: `Bearer ${keys.model}` },
      "model",
      undefined,
    ],
    ["nor in the other header", { apiKey: keys.model, authorization: "Bearer other" }, "model", undefined],
    ["two wrong keys", { apiKey: "sk-other", authorization: "Bearer other" }, "model", "unauthenticated"],
    ["no key", {}, "model", "unauthenticated"],
    ["a wrong key", { authorization: "Bearer nope" }, "model", "unauthenticated"],
    ["another scheme", { authorization: `Basic ${keys.model}` }, "model", "unauthenticated"],
    ["a key with a tail", { authorization: `Bearer ${keys.model}x` }, "model", "unauthenticated"],
    ["localhost is this machine", { host: "localhost:4747" }, "none", undefined],
    ["so is IPv6 loopback", { host: "[::1]:4747" }, "none", undefined],
    ["another port is another server", { host: "127.0.0.1:80" }, "none", "foreign_host"],
    [
      "a rebound name is refused before any key counts",
      { host: "evil.example:4747", authorization: `Bearer ${keys.model}` },
      "model",
      "foreign_host",
    ],
    ["a name that only begins like ours", { host: "127.0.0.1.evil.example:4747" }, "none", "foreign_host"],
    ["no Host at all", { host: undefined }, "none", "foreign_host"],
    ["our own page", { origin: "http://127.0.0.1:4747" }, "none", undefined],
    [
      "a foreign page",
      { origin: "https://evil.example", authorization: `Bearer ${keys.model}` },
      "model",
      "foreign_origin",
    ],
    ["a sandboxed page", { origin: "null" }, "none", "foreign_origin"],
    ["another program's page on this machine", { origin: "http://127.0.0.1:3000" }, "none", "foreign_origin"],
  ];
for (const [name, fields, audience, code] of cases) {
  test(name, () => assert.equal(access.refuse(request(fields), audience)?.code, code));
}

test("keys of any length and content are told apart from those that only begin or end like them", () => {
  const long = "k".repeat(300);
  for (const face of [`${long}f`, "é".repeat(100), "f".repeat(100), "f".repeat(101)]) {
    const control = createAccessControl({ keys: { model: long, face }, port: () => 4747 });
    const codeFor = (apiKey: string) => control.refuse(request({ apiKey }), "face")?.code;
    assert.equal(codeFor(face), undefined);
    assert.equal(codeFor(long), "wrong_audience");
    for (const other of [`${face}x`, face.slice(1), `${face.slice(0, -1)}x`, "\0".repeat(300), ""]) {
      assert.equal(codeFor(other), "unauthenticated");
    }
  }
});
