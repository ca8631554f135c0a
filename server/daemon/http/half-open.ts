/**
 * Connections that have not sent a whole request head yet. Anyone on the machine can open thousands; only the newest `MAX_HALF_OPEN` stay, so that a
 * flood pushes out itself and not the clients that talk.
 */
import type { Server } from "node:http";
import type { Socket } from "node:net";

/** A working client sends its head within a millisecond on loopback; this many at once means something else is going on. */
export const MAX_HALF_OPEN = 512;

export function boundHalfOpen(server: Server, limit = MAX_HALF_OPEN): void {
  const halfOpen = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    halfOpen.add(socket);
    socket.once("close", () => halfOpen.delete(socket));
    if (halfOpen.size <= limit) return;
    const [oldest] = halfOpen;
    if (oldest !== undefined) {
      halfOpen.delete(oldest);
      oldest.destroy();
    }
  });
  server.on("request", (request) => halfOpen.delete(request.socket));
}
