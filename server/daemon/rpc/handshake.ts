/** `initialize`: who calls, with which key, in which version of the protocol. */
import { PROTOCOL_VERSION } from "../../../protocol/ghost-api.ts";
import { clientIdSchema, type UserId } from "../../../protocol/ids.ts";
import { initializeParams, type InitializeResult } from "../../../protocol/initialize.ts";
import type { Ids } from "../../base/clock.ts";
import { UserError } from "../../base/errors.ts";
import { type Caller, parseParams } from "../bind-api.ts";

/** The user of a face credential, or undefined for a wrong one. Compares in constant time. */
export type Authenticate = (key: string) => { readonly userId: UserId } | undefined;

/** The oldest major version that this daemon still speaks. */
const OLDEST_PROTOCOL_VERSION = 1;

export interface Handshake {
  readonly caller: Caller;
  readonly result: InitializeResult;
}

/** @throws UserError `invalid_params`, `unauthenticated`, `protocol_unsupported` */
export function shakeHands(
  params: unknown,
  options: { readonly authenticate: Authenticate; readonly ids: Ids; readonly version: string },
): Handshake {
  const { ghost } = parseParams(initializeParams, params).initializationOptions;
  const user = options.authenticate(ghost.key);
  if (user === undefined) throw new UserError("unauthenticated", "the face credential is wrong");
  const protocol = negotiate(ghost.protocol);
  const clientId = clientIdSchema.parse(options.ids.next("cli"));
  return {
    caller: { userId: user.userId, clientId, clientName: ghost.client.name },
    result: {
      capabilities: {},
      serverInfo: { name: "ghostd", version: options.version },
      ghost: { protocol, clientId },
    },
  };
}

/** The highest version that both sides speak. @throws UserError `protocol_unsupported` */
function negotiate(client: { readonly min: number; readonly max: number }): number {
  const highest = Math.min(client.max, PROTOCOL_VERSION);
  if (highest >= Math.max(client.min, OLDEST_PROTOCOL_VERSION)) return highest;
  const ours = `${OLDEST_PROTOCOL_VERSION} to ${PROTOCOL_VERSION}`;
  throw new UserError(
    "protocol_unsupported",
    `the client speaks protocol versions ${client.min} to ${client.max}, the daemon speaks ${ours}`,
    {
      details: {
        clientMin: client.min,
        clientMax: client.max,
        daemonMin: OLDEST_PROTOCOL_VERSION,
        daemonMax: PROTOCOL_VERSION,
      },
    },
  );
}
