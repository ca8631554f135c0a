/**
 * A model server in a network of its own, for tests in which that network goes silent: `node silent-upstream.ts HOST`.
 * It prints its port. A plain request gets its answer after `SILENCE_MS`, by when its network is gone; a stream sends a token every 20 ms.
 */
import { once } from "node:events";
import { createServer } from "node:http";

const SILENCE_MS = 1_000;

const server = createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8").on("data", (text: string) => {
    body += text;
  });
  request.on("end", () => {
    process.stdout.write("asked\n");
    if (!body.includes('"stream":true')) {
      setTimeout(
        () =>
          response.end(
            JSON.stringify({
              choices: [{ index: 0, message: { role: "assistant", content: "late" }, finish_reason: "stop" }],
            }),
          ),
        SILENCE_MS,
      );
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const timer = setInterval(
      () =>
        response.write(
          `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "word " }, finish_reason: null }] })}\n\n`,
        ),
      20,
    );
    response.on("close", () => clearInterval(timer));
  });
});
server.listen(0, process.argv[2]);
await once(server, "listening");
const address = server.address();
process.stdout.write(`${typeof address === "object" && address !== null ? address.port : ""}\n`);
