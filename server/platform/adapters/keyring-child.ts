/**
 * The OS keyring's library, in a process of its own that lives for one request: where D-Bus hangs, the library blocks its whole thread for good, and
 * its caller must be able to end that.
 * 1. Only the Secret Service counts on Linux: the library's other store, the kernel's keyring, forgets everything at the next boot.
 * 2. The first look runs beside the main thread, which so notices that the daemon is gone, and ends this process whatever hangs in it.
 */
import { AsyncEntry, findCredentialsAsync } from "@napi-rs/keyring";
import { type KeyringReply, type KeyringRequest, keyringRequestSchema } from "./keyring-protocol.ts";

/** Nothing is stored under it: looking there tells whether anybody answers, without a look at a key. */
const PROBE_SERVICE = "ghoststack-probe";

// (2) An ordinary exit would wait for the thread that hangs.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
process.once("message", (message) => {
  void answer(keyringRequestSchema.parse(message)).then((reply) => send(reply));
});

function send(reply: KeyringReply): void {
  // The callback swallows a channel that closed meanwhile: "disconnect" ends us.
  process.send?.(reply, undefined, undefined, () => {});
}

async function answer(request: KeyringRequest): Promise<KeyringReply> {
  try {
    await findCredentialsAsync(PROBE_SERVICE);
    const entry = new AsyncEntry(request.service, request.account, { linux: { store: "secret-service" } });
    send({ kind: "reached" });
    return await perform(entry, request);
  } catch (error) {
    return { kind: "absent", why: messageOf(error) };
  }
}

async function perform(entry: AsyncEntry, request: KeyringRequest): Promise<KeyringReply> {
  try {
    switch (request.kind) {
      case "get": {
        const secret = await entry.getPassword();
        return secret === null ? { kind: "done" } : { kind: "done", secret };
      }
      case "set":
        await entry.setPassword(request.secret);
        // Some services say yes and keep nothing, for example in a collection that is gone at logout.
        return (await entry.getPassword()) === request.secret
          ? { kind: "done" }
          : { kind: "refused", why: "it did not keep what it was given" };
      case "delete":
        return { kind: "done", existed: await entry.deleteCredential() };
    }
  } catch (error) {
    return { kind: "refused", why: messageOf(error) };
  }
}

/** The library's own words have the reason last: `Platform failure: DBus error: Connection refused`. */
function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split(/: (?=[^:]*$)/).at(-1) ?? text;
}
