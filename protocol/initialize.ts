/** The first request on a connection: who calls, with which key, and which protocol versions it speaks. */
import { z } from "zod";

export const INITIALIZE = "initialize";

/** `initializationOptions.ghost` of LSP's `initialize`: our part of the handshake. */
export const ghostInitializeOptions = z.object({
  /** The oldest and the newest major version that the client speaks. */
  protocol: z.object({ min: z.int().positive(), max: z.int().positive() }),
  /** The face credential: the content of `<data-dir>/face.key`. */
  key: z.string().min(1).max(512),
  client: z.object({ name: z.string().min(1).max(64), version: z.string().max(64).optional() }),
});

export const initializeParams = z.looseObject({
  processId: z.int().nullable().optional(),
  clientInfo: z.looseObject({ name: z.string() }).optional(),
  capabilities: z.looseObject({}).default({}),
  initializationOptions: z.looseObject({ ghost: ghostInitializeOptions }),
});
export type InitializeParams = z.input<typeof initializeParams>;

export const initializeResult = z.looseObject({
  capabilities: z.looseObject({}),
  serverInfo: z.object({ name: z.string(), version: z.string() }),
  ghost: z.object({
    /** The version both sides speak from now on: the highest that both know. */
    protocol: z.int().positive(),
    clientId: z.string(),
  }),
});
export type InitializeResult = z.infer<typeof initializeResult>;
