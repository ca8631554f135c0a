/**
 * The catalogue of errors: every failure that crosses a process boundary carries one of these codes.
 * `docs/errors.md` is generated from this table; a test keeps both equal.
 */
import { z } from "zod";

export type ErrorFamily = "user" | "operational" | "bug";

interface CatalogueEntry {
  readonly family: ErrorFamily;
  /** The status an HTTP front answers with. */
  readonly http: number;
  /** What went wrong, in one sentence. */
  readonly meaning: string;
  /** What the user can do next. */
  readonly advice: string;
}

const catalogue = {
  config_syntax: {
    family: "user",
    http: 500,
    meaning: "A configuration file is not valid TOML.",
    advice: "Mend the file at the line and column named; `ghost doctor` checks it again.",
  },
  config_invalid: {
    family: "user",
    http: 500,
    meaning: "A configuration file holds an unknown key or a value of the wrong kind.",
    advice: "Correct the setting named; docs/configuration.md lists all of them.",
  },
  usage: {
    family: "user",
    http: 400,
    meaning: "A command line was not understood.",
    advice: "Run the command with `--help`.",
  },
  runs_as_root: {
    family: "user",
    http: 500,
    meaning: "The daemon refuses to run as root.",
    advice: "Start it as your own user; containers and tests may pass `--allow-root`.",
  },
  already_running: {
    family: "user",
    http: 409,
    meaning: "Another daemon already uses this runtime or data folder.",
    advice: "Use the running one (`ghost status`), stop it (`ghost stop`), or pass other folders.",
  },
  port_in_use: {
    family: "user",
    http: 500,
    meaning: "The HTTP port is taken by another program.",
    advice: "Stop that program, or choose a port with `--port N` or `[http] port`; 0 picks a free one.",
  },
  folder_unusable: {
    family: "user",
    http: 500,
    meaning: "A folder or file that the daemon needs cannot be used.",
    advice: "Check that it belongs to you, and that you may read and write it.",
  },
  database_newer: {
    family: "user",
    http: 500,
    meaning: "The database was written by a newer version.",
    advice: "Update GhostStack, or pass another `--data-dir`. Nothing was changed.",
  },
  database_unreadable: {
    family: "operational",
    http: 500,
    meaning: "The database cannot be opened.",
    advice: "Read the message; a damaged file is kept aside under the name given, and a new one is started.",
  },
  storage_full: {
    family: "operational",
    http: 507,
    meaning: "The disk is full or the file cannot grow.",
    advice: "Free some space; what was acknowledged before is safe. Send the request again.",
  },
  daemon_unreachable: {
    family: "operational",
    http: 503,
    meaning: "No daemon answers on the socket.",
    advice: "Start it with `ghost start` or `npm start`.",
  },
  daemon_stopping: {
    family: "operational",
    http: 503,
    meaning: "The daemon is shutting down.",
    advice: "Start it again, then repeat the request.",
  },
  protocol_unsupported: {
    family: "user",
    http: 400,
    meaning: "Client and daemon share no protocol version.",
    advice: "Update the older of the two; the message names the versions of both.",
  },
  protocol_violation: {
    family: "user",
    http: 400,
    meaning: "A message broke the rules of the protocol.",
    advice: "This is a fault of the client; docs/protocol.md describes the messages.",
  },
  not_initialized: {
    family: "user",
    http: 400,
    meaning: "A request came before `initialize`.",
    advice: "Send `initialize` with the face credential first.",
  },
  method_unknown: {
    family: "user",
    http: 404,
    meaning: "There is no such method or route.",
    advice: "docs/protocol.md and docs/http.md list what exists.",
  },
  invalid_params: {
    family: "user",
    http: 400,
    meaning: "A parameter is missing or of the wrong kind.",
    advice: "Correct the field named in `details.field`.",
  },
  invalid_json: {
    family: "user",
    http: 400,
    meaning: "The body is not valid JSON.",
    advice: "Send a JSON object encoded as UTF-8.",
  },
  body_too_large: {
    family: "user",
    http: 413,
    meaning: "The body is larger than the limit.",
    advice: "Send less; `[http] max_body_mib` sets the limit.",
  },
  unauthenticated: {
    family: "user",
    http: 401,
    meaning: "The key is missing or wrong.",
    advice: "`ghost env` prints the model key for other programs; faces read `face.key` in the data folder.",
  },
  wrong_audience: {
    family: "user",
    http: 403,
    meaning: "This key does not open this door.",
    advice: "A model key opens the model APIs only; faces use the face credential.",
  },
  foreign_host: {
    family: "user",
    http: 403,
    meaning: "The `Host` header names another machine.",
    advice: "Call the daemon by a loopback address.",
  },
  foreign_origin: {
    family: "user",
    http: 403,
    meaning: "The request comes from a foreign web page.",
    advice: "Only the daemon's own pages may call it from a browser.",
  },
  model_not_found: {
    family: "user",
    http: 404,
    meaning: "No model has this name.",
    advice: "`ghost models` lists the models.",
  },
  no_model_available: {
    family: "operational",
    http: 503,
    meaning: "No model can take this request now.",
    advice: "`ghost doctor` says what is missing; `ghost models` shows what is there.",
  },
  capability_missing: {
    family: "user",
    http: 400,
    meaning: "The model cannot do what the request asks.",
    advice: "Choose another model; `ghost models --json` shows what each can do.",
  },
  context_too_long: {
    family: "user",
    http: 400,
    meaning: "The prompt does not fit into the model's context window.",
    advice: "Shorten the prompt or choose a model with a larger window.",
  },
  weights_missing: {
    family: "user",
    http: 404,
    meaning: "A model's weights file is missing.",
    advice: "Download it again with `ghost models pull`, or correct its path.",
  },
  weights_corrupt: {
    family: "user",
    http: 400,
    meaning: "A weights file is not a usable GGUF.",
    advice: "Download it again; `ghost models pull` checks size and sha256.",
  },
  engine_crashed: {
    family: "operational",
    http: 502,
    meaning: "The embedded engine's process ended unexpectedly.",
    advice: "Send the request again; the engine restarts by itself. `ghost logs` has its last words.",
  },
  engine_busy: {
    family: "operational",
    http: 503,
    meaning: "The embedded engine's queue is full.",
    advice: "Try again in a moment, or use another model.",
  },
  upstream_unreachable: {
    family: "operational",
    http: 502,
    meaning: "The model server cannot be reached.",
    advice: "Start it or correct its address; `ghost doctor` tests it.",
  },
  upstream_auth: {
    family: "user",
    http: 502,
    meaning: "The model server refuses our key.",
    advice: "Store the right one with `ghost keys set`; `ghost keys test` says what is wrong.",
  },
  provider_unknown: {
    family: "user",
    http: 404,
    meaning: "No provider of this name takes a key.",
    advice: "`ghost keys list` shows those that do.",
  },
  key_missing: {
    family: "user",
    http: 404,
    meaning: "This provider has no stored key.",
    advice: "Store one with `ghost keys set`; `ghost keys list` shows what there is.",
  },
  key_unreadable: {
    family: "operational",
    http: 503,
    meaning: "A key is stored, and cannot be read or removed now.",
    advice: "Unlock the OS keyring, or store the key again with `ghost keys set`.",
  },
  upstream_rate_limited: {
    family: "operational",
    http: 429,
    meaning: "The model server asks us to slow down.",
    advice: "Wait as long as `retry-after` says, or use another model.",
  },
  upstream_overloaded: {
    family: "operational",
    http: 503,
    meaning: "The model's server has too much to do.",
    advice:
      "Try again in a moment, or name another model; a virtual model or an alias with several models moves on by itself.",
  },
  upstream_quota: {
    family: "user",
    http: 402,
    meaning: "The account at the model's provider has no credit or quota left.",
    advice: "Raise the limit or add credit with that provider, or name another model; waiting does not help.",
  },
  upstream_filtered: {
    family: "user",
    http: 400,
    meaning: "The model's provider refuses this content.",
    advice: "Change the prompt, or name a model of another provider.",
  },
  upstream_rejected: {
    family: "user",
    http: 400,
    meaning: "The model server rejects the request.",
    advice: "Read its message; another model may accept it.",
  },
  upstream_failed: {
    family: "operational",
    http: 502,
    meaning: "The model server failed or broke off.",
    advice: "Send the request again; `ghost logs` has the details.",
  },
  upstream_timeout: {
    family: "operational",
    http: 504,
    meaning: "The model server stayed silent for too long.",
    advice: "Try again or use another model; the time limits are settings.",
  },
  download_failed: {
    family: "operational",
    http: 502,
    meaning: "A download did not complete.",
    advice: "Run the same command again: it resumes where it stopped.",
  },
  download_mismatch: {
    family: "user",
    http: 502,
    meaning: "A downloaded file has the wrong size or checksum.",
    advice: "Check the address and the checksum; the file was not registered.",
  },
  denied: {
    family: "user",
    http: 403,
    meaning: "GhostWarden denies this.",
    advice: "Change warden.toml if you want to allow it; the rule is named in the message.",
  },
  consent_expired: {
    family: "user",
    http: 403,
    meaning: "Nobody answered the question in time, which counts as no.",
    advice: "Ask again with a face attached (`ghost chat`, an editor).",
  },
  session_not_found: {
    family: "user",
    http: 404,
    meaning: "No session has this id.",
    advice: "`ghost sessions` lists them.",
  },
  session_busy: {
    family: "operational",
    http: 409,
    meaning: "An answer is still being written in this session; a second question would go on from half of it.",
    advice: "Wait for the end of the answer or cancel it, or ask in a session of its own.",
  },
  response_not_found: {
    family: "user",
    http: 404,
    meaning: "No response of the Responses API is kept under this id.",
    advice: "It may have been deleted, or was asked with `store: false`; send the request again.",
  },
  previous_response_not_found: {
    family: "user",
    http: 400,
    meaning: "The response that `previous_response_id` names is not known here.",
    advice: "Send the whole conversation as `input`, without `previous_response_id`.",
  },
  approval_not_found: {
    family: "user",
    http: 404,
    meaning: "No question has this id.",
    advice: "It may have expired; `ghost status` shows the open ones.",
  },
  stream_position_lost: {
    family: "operational",
    http: 410,
    meaning: "The stream cannot be resumed from this position.",
    advice: "Read the session again from its start.",
  },
  overloaded: {
    family: "operational",
    http: 503,
    meaning: "The daemon has too much to do.",
    advice: "Try again in a moment.",
  },
  cancelled: {
    family: "operational",
    http: 499,
    meaning: "The request was cancelled.",
    advice: "Nothing: this is what was asked for.",
  },
  internal: {
    family: "bug",
    http: 500,
    meaning: "Something in GhostStack is wrong.",
    advice: "`ghost logs` has the details; please report it.",
  },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof catalogue;
export type CodeOf<Family extends ErrorFamily> = {
  [Code in ErrorCode]: (typeof catalogue)[Code]["family"] extends Family ? Code : never;
}[ErrorCode];

/** The whole table, for the fronts and for the documentation. */
export const errorCatalogue: Readonly<Record<ErrorCode, CatalogueEntry>> = catalogue;

export const errorDetailsSchema = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.string())]),
);
/** Facts about one error, flat: `{field: "messages.0.role"}`, `{line: 3, column: 7}`, `{pid: 4711}`. */
export type ErrorDetails = Readonly<z.infer<typeof errorDetailsSchema>>;

const codeSchema = z.custom<ErrorCode>((value) => typeof value === "string" && Object.hasOwn(catalogue, value));

export const wireErrorSchema = z.object({
  code: codeSchema,
  message: z.string(),
  details: errorDetailsSchema,
  retryAfterMs: z.number().nonnegative().optional(),
});
/** An error as it crosses the wire: the `data` of a JSON-RPC error, the body of an HTTP one. */
export type WireError = z.infer<typeof wireErrorSchema>;

/** The JSON-RPC number of every catalogue error for which JSON-RPC and LSP have none of their own (rpc-error.ts). */
export const GHOST_RPC_ERROR = -32_000;

/** What a face catches: one error of the catalogue, wherever it was thrown. */
export class GhostApiError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;
  readonly retryAfterMs: number | undefined;

  constructor(error: WireError, options?: ErrorOptions) {
    super(error.message, options);
    this.name = "GhostApiError";
    this.code = error.code;
    this.details = error.details;
    this.retryAfterMs = error.retryAfterMs;
  }

  /** The catalogue's advice for this code: what to do next. */
  get advice(): string {
    return catalogue[this.code].advice;
  }
}
