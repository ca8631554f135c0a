/** GhostWarden's answer to GhostLLM's only question: may this text go to a cloud model? */
import type { ModelInfo } from "../../protocol/model.ts";
import type { Authorizer } from "../ghostllm/brain.ts";
import { toError, type Warden } from "../ghostwarden/warden.ts";
import { type EffectRequest, THIS_MACHINE } from "../platform/permit.ts";

export function createAuthorizer(warden: Warden): Authorizer {
  return {
    cloudDenied(model, actor) {
      const { verdict, rule } = warden.judge(cloudEffect(model), actor);
      return verdict === "deny"
        ? `is in the cloud, and ${rule.source === "user" ? "your rule" : "the default"} denies llm.cloud`
        : undefined;
    },
    async authorizeCloud(model, actor, signal) {
      const effect = cloudEffect(model);
      // The everyday case costs one look-up and no ledger row: what was sent is in the transcript.
      if (warden.judge(effect, actor).verdict === "allow") return;
      const result = await warden.authorize(effect, actor, `send this conversation to ${model.ref}`, signal);
      if (result.kind !== "granted") throw toError(result);
      result.permit.spend(effect).settle({ kind: "done" });
    },
  };
}

function cloudEffect(model: ModelInfo): EffectRequest {
  return { capability: "llm.cloud", resource: { kind: "model", model: model.ref }, host: THIS_MACHINE };
}
