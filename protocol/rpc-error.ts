/** Catalogue errors as JSON-RPC error objects, and back. */
import {
  type ErrorCode,
  errorDetailsSchema,
  GHOST_RPC_ERROR,
  GhostApiError,
  type WireError,
  wireErrorSchema,
} from "./errors.ts";
import { z } from "zod";

/** Where JSON-RPC 2.0 or LSP has a number of its own for a failure, generic clients see that one; `data` says the rest. */
const STANDARD_CODES: Readonly<Partial<Record<ErrorCode, number>>> = {
  invalid_json: -32_700,
  body_too_large: -32_600,
  protocol_violation: -32_600,
  method_unknown: -32_601,
  invalid_params: -32_602,
  not_initialized: -32_002,
  cancelled: -32_800,
};

export const standardRpcCodes: readonly (readonly [string, number])[] = Object.entries(STANDARD_CODES);

interface RpcErrorObject {
  readonly code: number;
  readonly message: string;
  readonly data: WireError;
}

export function toRpcError(error: WireError): RpcErrorObject {
  return { code: STANDARD_CODES[error.code] ?? GHOST_RPC_ERROR, message: error.message, data: error };
}

const rpcErrorSchema = z.object({ code: z.int(), message: z.string(), data: z.unknown().optional() });
const foreignWireError = z.object({ code: z.string(), message: z.string(), details: errorDetailsSchema.default({}) });

/**
 * What a peer's error object says, as an error of the catalogue. A code that this side does not know (the peer is newer) becomes
 * `internal` with the code in `details.unknownCode`; an error without a catalogue error in it is `protocol_violation`.
 */
export function fromRpcError(thrown: unknown): GhostApiError {
  if (thrown instanceof GhostApiError) return thrown;
  const rpcError = rpcErrorSchema.safeParse(thrown);
  const known = wireErrorSchema.safeParse(rpcError.data?.data);
  if (known.success) return new GhostApiError(known.data, { cause: thrown });
  const foreign = foreignWireError.safeParse(rpcError.data?.data);
  if (foreign.success) {
    const { code, message, details } = foreign.data;
    return new GhostApiError(
      { code: "internal", message, details: { ...details, unknownCode: code } },
      { cause: thrown },
    );
  }
  const message = thrown instanceof Error ? thrown.message : String(rpcError.data?.message ?? thrown);
  return new GhostApiError({ code: "protocol_violation", message, details: {} }, { cause: thrown });
}
