/**
 * Two fake hosts behind one address, as providers have it whose API is wider than one fake: by the path of a request, one of them answers. What breaks
 * there breaks here: a reset or a cut is passed on as one.
 */
import { once } from "node:events";
import { createServer, request as send, type IncomingMessage, type ServerResponse } from "node:http";
import { z } from "zod";

export interface JoinedHosts extends AsyncDisposable {
  /** `http://127.0.0.1:PORT`, without a path. */
  readonly origin: string;
}

/** `choose` names the origin that answers a path, `rewrite` the path that it is asked for. */
export async function joinHosts(
  choose: (path: string) => string,
  { rewrite }: { readonly rewrite: (path: string) => string },
): Promise<JoinedHosts> {
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? "/";
    pass(incoming, outgoing, { origin: choose(path), path: rewrite(path) });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = z.object({ port: z.number() }).parse(server.address());
  return {
    origin: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function pass(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { origin, path }: { readonly origin: string; readonly path: string },
): void {
  const { method, headers } = incoming;
  const onward = send(origin + path, { method, headers: { ...headers, host: new URL(origin).host } });
  const breakOff = () => outgoing.socket?.resetAndDestroy();
  onward.on("error", breakOff);
  outgoing.on("close", () => onward.destroy());
  onward.on("response", (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    outgoing.flushHeaders();
    answer.on("data", (chunk: Buffer) => outgoing.write(chunk));
    answer.on("end", () => outgoing.end());
    answer.on("error", breakOff);
    answer.on("aborted", breakOff);
  });
  incoming.pipe(onward);
}
