import assert from "node:assert/strict";
import { test } from "node:test";
import type { Locality } from "../../../protocol/model.ts";
import { localityOf } from "./locality.ts";

const cases: readonly [string, Locality][] = [
  ["http://127.0.0.1:11434", "machine"],
  ["http://127.9.9.9", "machine"],
  ["http://localhost:1", "machine"],
  ["http://ollama.localhost", "machine"],
  ["http://[::1]:11434", "machine"],
  ["http://2130706433", "machine"],
  ["http://[::ffff:127.0.0.1]", "machine"],
  ["http://10.1.2.3", "lan"],
  ["http://192.168.0.7:11434", "lan"],
  ["http://172.16.0.1", "lan"],
  ["http://172.31.255.255", "lan"],
  ["http://169.254.1.1", "lan"],
  ["http://[fd12:3456::1]", "lan"],
  ["http://[fe80::1]", "lan"],
  ["http://[::ffff:192.168.1.1]", "lan"],
  ["http://172.32.0.1", "cloud"],
  ["http://192.169.0.1", "cloud"],
  ["http://8.8.8.8", "cloud"],
  ["http://[2001:db8::1]", "cloud"],
  ["https://ollama.com", "cloud"],
  ["http://localhost.example.com", "cloud"],
  ["http://10.example.com", "cloud"],
  ["http://ws4090:11434", "cloud"],
];

for (const [url, locality] of cases) {
  test(`${url} is ${locality}`, () => {
    assert.equal(localityOf(url), locality);
  });
}
