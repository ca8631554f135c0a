/** docs/http.md lists the routes that there are, with the key that each asks for, and no others. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { root } from "../tools/source-files.ts";
import { startTestDaemon } from "./support/daemon.ts";

const routeRows = z.array(z.object({ method: z.string(), path: z.string(), audience: z.string() }));
/** These change models; the page names them in one sentence. */
const REFUSED = /^\/api\/(pull|push|create|copy|delete|blobs)/;

/** Parameters are called differently by the page and by the daemon, and methods behind a colon are one route of it. */
const plain = (path: string): string => path.replace(/(?:\{\w+\}|:\w+|\*)(?::\w+)?/g, "*");

test("the page has every route of both listeners, and each with its key", async () => {
  await using daemon = await startTestDaemon({ config: "[http.ollama]\nenabled = true\nport = 0\n" });
  const listening = daemon.logs().filter(({ event }) => String(event).endsWith("http.listening"));
  assert.equal(listening.length, 2);
  const found = listening
    .flatMap(({ routes }) => routeRows.parse(routes))
    .filter(({ path }) => !REFUSED.test(path))
    .map(({ method, path, audience }) => `${method} ${plain(path)}: ${audience}`);
  assert.ok(found.length > 20);
  const page = readFileSync(join(root, "docs/http.md"), "utf8");
  const told = [...page.matchAll(/^\| (`[A-Z]+ .+?) \| (none|model|face) \|/gm)].flatMap(({ 1: routes = "", 2: key }) =>
    [...routes.matchAll(/`([A-Z]+) (\/[^`]*)`/g)].map(
      ({ 1: method, 2: path = "" }) => `${method} ${plain(path)}: ${key}`,
    ),
  );
  assert.deepEqual([...new Set(told)].toSorted(), [...new Set(found)].toSorted());
});
