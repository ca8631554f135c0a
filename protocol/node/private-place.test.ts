/** A face's credential goes to a socket of its own user, in a folder that is closed to others, or nowhere. */
import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { GhostApiError } from "../errors.ts";
import { connectSocket } from "./socket-transport.ts";
import { checkPrivateFolder } from "./private-place.ts";

const KEY = "ghost-face-secret";
const STRANGER_UID = 65_534;

/** Somebody listens in a folder; what a face that connects there fails with, and what the listener got. */
async function knock(prepare: (place: { folder: string; socket: string }) => string): Promise<unknown> {
  const root = mkdtempSync(join(tmpdir(), "gs-place-"));
  const folder = join(root, "run");
  mkdirSync(folder, { mode: 0o700 });
  const socket = join(folder, "ghostd.sock");
  const received: Buffer[] = [];
  let callers = 0;
  const server = createServer((caller) => {
    callers += 1;
    caller.on("error", () => {});
    caller.on("data", (chunk: Buffer) => {
      received.push(chunk);
      caller.destroy();
    });
  });
  server.listen(socket);
  await once(server, "listening");
  try {
    const path = prepare({ folder, socket });
    const thrown = await connectSocket(path, { key: KEY, clientName: "test", initializeTimeoutMs: 5000 }).catch(
      (error: unknown) => error,
    );
    assert.ok(thrown instanceof GhostApiError, String(thrown));
    const isSent = callers > 0 || Buffer.concat(received).includes(KEY);
    return { code: thrown.code, message: thrown.message.replaceAll(root, ""), isSent };
  } finally {
    server.close();
    rmSync(root, { recursive: true });
  }
}

const refused = (message: string) => ({ code: "folder_unusable", message, isSent: false });

test("a private place is spoken to", async () => {
  const answer = await knock(({ socket }) => socket);
  assert.deepEqual(answer, { ...Object(answer), code: "daemon_unreachable", isSent: true });
});

test("in a folder that others may enter, nothing is sent", async () => {
  for (const mode of [0o777, 0o750, 0o701]) {
    const answer = await knock(({ folder, socket }) => {
      chmodSync(folder, mode);
      return socket;
    });
    const text = mode.toString(8).padStart(4, "0");
    assert.deepEqual(answer, refused(`/run is open to other users (mode ${text}): chmod 700 /run`));
  }
});

test("through a link, nothing is sent: neither to a linked folder nor to a linked socket", async () => {
  const folderAnswer = await knock(({ folder }) => {
    symlinkSync(folder, `${folder}-link`);
    return `${folder}-link/ghostd.sock`;
  });
  assert.deepEqual(folderAnswer, refused("/run-link is a link: only a real folder can be trusted"));
  const socketAnswer = await knock(({ folder, socket }) => {
    symlinkSync(socket, join(folder, "link"));
    return join(folder, "link");
  });
  assert.deepEqual(socketAnswer, refused("/run/link is not a socket"));
  const fileAnswer = await knock(({ folder }) => {
    writeFileSync(join(folder, "file"), "");
    return join(folder, "file");
  });
  assert.deepEqual(fileAnswer, refused("/run/file is not a socket"));
});

test("to a folder or a socket of another user, nothing is sent", async () => {
  const foreign = `belongs to user ${process.getuid?.()}, not to ${STRANGER_UID}`;
  const root = mkdtempSync(join(tmpdir(), "gs-place-"));
  try {
    await assert.rejects(checkPrivateFolder(root, STRANGER_UID), {
      code: "folder_unusable",
      message: `${root} ${foreign}`,
    });
  } finally {
    rmSync(root, { recursive: true });
  }
  if (process.getuid?.() !== 0) return; // Only root can give something away.
  const folderAnswer = await knock(({ folder, socket }) => {
    chownSync(folder, STRANGER_UID, STRANGER_UID);
    return socket;
  });
  assert.deepEqual(folderAnswer, refused(`/run belongs to user ${STRANGER_UID}, not to 0`));
  const socketAnswer = await knock(({ socket }) => {
    chownSync(socket, STRANGER_UID, STRANGER_UID);
    return socket;
  });
  assert.deepEqual(socketAnswer, refused(`/run/ghostd.sock belongs to user ${STRANGER_UID}, not to 0`));
});

test("where nothing is, nobody answers", async () => {
  const answer = await knock(({ folder }) => join(folder, "absent", "ghostd.sock"));
  assert.deepEqual(answer, { ...Object(answer), code: "daemon_unreachable", isSent: false });
});
