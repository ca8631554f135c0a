/** A worker for workers.test.ts that behaves as its job says, well or badly. */
import { UserError } from "../base/errors.ts";
import { serveWorker } from "./workers.ts";

serveWorker((job) => {
  const command = new TextDecoder().decode(job);
  switch (command) {
    case "refuse":
      throw new UserError("invalid_json", "line 3", { details: { line: 3 } });
    case "throw":
      throw new RangeError("out of range");
    case "exit":
      process.exit(3);
      break;
    case "uncaught":
      setImmediate(() => {
        throw new Error("nobody catches this");
      });
      return new Promise<never>(() => {});
    case "hang":
      for (;;);
    case "memory":
      return new TextEncoder().encode(`${hoard().length}`);
    case "env":
      return new TextEncoder().encode(JSON.stringify(process.env));
  }
  return job;
});

function hoard(): readonly unknown[] {
  const kept: unknown[] = [];
  for (;;) kept.push(Array.from({ length: 1000 }, (_, place) => ({ place })));
}
