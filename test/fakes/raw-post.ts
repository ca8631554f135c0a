/** One POST on a raw socket: every byte of the answer as it came, for tests of what is on the wire. */
import { connect } from "node:net";

export interface RawAnswer {
  /** Status line, headers and body, chunk sizes included. */
  readonly bytes: Buffer;
  readonly isReset: boolean;
}

export async function rawPost(
  port: number,
  path: string,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawAnswer> {
  const text = JSON.stringify(body);
  const head = {
    host: "fake",
    connection: "close",
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(text)),
    ...headers,
  };
  const socket = connect(port, "127.0.0.1");
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n${text}`);
  const chunks: Buffer[] = [];
  let isReset = false;
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", (error) => {
    isReset = "code" in error && error.code === "ECONNRESET";
  });
  await new Promise((resolve) => socket.once("close", resolve)); // `once` would reject at the reset.
  return { bytes: Buffer.concat(chunks), isReset };
}
