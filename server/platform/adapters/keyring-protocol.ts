/** What the daemon and the keyring's child process say to each other, over the child's IPC channel. */
import { z } from "zod";

export const keyringRequestSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("get"), service: z.string(), account: z.string() }),
  z.object({ kind: z.literal("set"), service: z.string(), account: z.string(), secret: z.string() }),
  z.object({ kind: z.literal("delete"), service: z.string(), account: z.string() }),
]);
export type KeyringRequest = z.infer<typeof keyringRequestSchema>;

export const keyringReplySchema = z.discriminatedUnion("kind", [
  /** There is a keyring, and it answers; what was asked for may still wait for its owner to unlock it. */
  z.object({ kind: z.literal("reached") }),
  z.object({ kind: z.literal("absent"), why: z.string() }),
  /** `secret`: what was found by `get`; `existed`: whether `delete` found something. */
  z.object({ kind: z.literal("done"), secret: z.string().optional(), existed: z.boolean().optional() }),
  z.object({ kind: z.literal("refused"), why: z.string() }),
]);
export type KeyringReply = z.infer<typeof keyringReplySchema>;
