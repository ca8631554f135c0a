/** The daemon itself: its state, its health, its log. */
import { z } from "zod";

export const daemonStatusResult = z.object({
  version: z.string(),
  pid: z.int(),
  startedAtMs: z.number(),
  http: z.string(),
  socket: z.string(),
  dataDir: z.string(),
  configFile: z.string(),
  clients: z.int(),
  openAnswers: z.int(),
  rssBytes: z.number(),
  engine: z.object({ state: z.enum(["idle", "starting", "ready", "crashed"]), pid: z.int().optional() }),
  /** The file to whose content `ghost env` refers as the model key. */
  modelKeyFile: z.string(),
});
export type DaemonStatus = z.infer<typeof daemonStatusResult>;

export const doctorFindingSchema = z.object({
  /** What was looked at: `engine`, `config`, `ollama 127.0.0.1:11434`. */
  subject: z.string(),
  state: z.enum(["ok", "warning", "problem"]),
  /** In plain words. */
  message: z.string(),
  /** The command that mends it. */
  remedy: z.string().optional(),
});
export type DoctorFinding = z.infer<typeof doctorFindingSchema>;
export const daemonDoctorResult = z.object({ findings: z.array(doctorFindingSchema) });

export const daemonLogsParams = z.object({
  /** How many of the latest lines come first. */
  lines: z.int().nonnegative().max(10_000).default(100),
  /** Go on with new lines as they are written. */
  follow: z.boolean().default(false),
});
/** One line of the log: a JSON object as text. */
export const daemonLogLine = z.object({ line: z.string() });

export const daemonStopResult = z.object({ draining: z.int() });
