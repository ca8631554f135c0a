/** Parses and checks large request bodies off the main loop. */
import { serveWorker } from "../../platform/workers.ts";
import { refuseExcess } from "../json-limits.ts";
import { decodeJob, encodeReply } from "./body-job.ts";
import { findPlaces, parseChat, parseCompletion, parseEmbedding } from "./dialects/openai-request.ts";

serveWorker((bytes) => {
  const { job, body } = decodeJob(bytes);
  refuseExcess(body);
  switch (job) {
    case "chat-facts":
      return encodeReply({ facts: parseChat(body).facts, places: findPlaces(body) });
    case "chat-messages":
      return encodeReply(parseChat(body).messages());
    case "completion": {
      const { prefix, suffix, ...facts } = parseCompletion(body);
      return encodeReply({ facts, places: findPlaces(body) }, [prefix, suffix]);
    }
    case "embedding-facts": {
      const { texts: _texts, ...facts } = parseEmbedding(body);
      return encodeReply({ facts, places: findPlaces(body) });
    }
    case "embedding-texts":
      return encodeReply(null, parseEmbedding(body).texts);
  }
});
