/** Parses and checks large request bodies off the main loop. */
import { findMembers } from "../../base/json-scan.ts";
import { serveWorker } from "../../platform/workers.ts";
import { refuseExcess } from "../json-limits.ts";
import { decodeJob, encodeMessages, encodeReply } from "./body-job.ts";
import { parseOllamaCompletion, parseOllamaEmbed, parseOllamaEmbedOne } from "./dialects/ollama-request.ts";
import { OPENAI_MEMBERS, parseCompletion, parseEmbedding } from "./dialects/openai-request.ts";
import { CHAT_PARSERS } from "./dialects/parsers.ts";

serveWorker((bytes) => {
  const { job, body } = decodeJob(bytes);
  refuseExcess(body);
  switch (job.kind) {
    case "chat-facts": {
      const { parse, members } = CHAT_PARSERS[job.dialect];
      return encodeReply({ facts: parse(body).facts, places: findMembers(body, members) });
    }
    case "chat-messages":
      return encodeMessages(CHAT_PARSERS[job.dialect].parse(body).messages());
    case "completion": {
      const { prefix, suffix, ...facts } = parseCompletion(body);
      return encodeReply({ facts, places: findMembers(body, OPENAI_MEMBERS) }, [prefix, suffix]);
    }
    case "embedding-facts": {
      const { texts: _texts, ...facts } = parseEmbedding(body);
      return encodeReply({ facts, places: findMembers(body, OPENAI_MEMBERS) });
    }
    case "embedding-texts":
      return encodeReply(null, parseEmbedding(body).texts);
    case "ollama-completion": {
      const completion = parseOllamaCompletion(body);
      if (completion === undefined) return encodeReply(null);
      const { prefix, suffix, ...facts } = completion;
      return encodeReply(facts, [prefix, suffix]);
    }
    case "ollama-embed":
    case "ollama-embed-one": {
      const { texts, ...facts } = (job.kind === "ollama-embed" ? parseOllamaEmbed : parseOllamaEmbedOne)(body);
      return encodeReply(facts, texts);
    }
  }
});
