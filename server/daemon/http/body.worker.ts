/** Parses and checks large request bodies off the main loop. */
import { serveWorker } from "../../platform/workers.ts";
import { decodeJob } from "./body-job.ts";
import { parseChat } from "./dialects/openai-request.ts";

serveWorker((bytes) => {
  const { job, body } = decodeJob(bytes);
  const { facts, messages } = parseChat(body);
  return new TextEncoder().encode(JSON.stringify(job === "chat-facts" ? facts : messages()));
});
