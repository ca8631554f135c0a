/** A session bus whose clients wait for ever: a Unix socket that takes what they say and never answers, as a D-Bus daemon that hangs does. */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";

export interface SilentBus extends AsyncDisposable {
  /** For `DBUS_SESSION_BUS_ADDRESS`. */
  readonly address: string;
  /** Resolves once a client has said its first words, and now waits. */
  waiting(): Promise<void>;
  /** Clients that are connected now. */
  readonly clients: number;
  /** Resolves once nobody is connected any more. */
  left(): Promise<void>;
}

export async function startSilentBus(path: string): Promise<SilentBus> {
  const clients = new Set<Socket>();
  let waiting = Promise.withResolvers<void>();
  let onLeft = () => {};
  const server = createServer((socket) => {
    clients.add(socket);
    socket.on("data", () => waiting.resolve());
    socket.on("error", () => {}); // Its process was killed.
    socket.on("close", () => {
      clients.delete(socket);
      waiting = Promise.withResolvers<void>();
      if (clients.size === 0) onLeft();
    });
  });
  await once(server.listen(path), "listening");
  return {
    address: `unix:path=${path}`,
    waiting: () => waiting.promise,
    get clients() {
      return clients.size;
    },
    left: () =>
      new Promise((resolve) => {
        onLeft = resolve;
        if (clients.size === 0) resolve();
      }),
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
