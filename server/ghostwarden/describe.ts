/** An effect in words, for questions and the ledger. */
import { describeEffect, type EffectRequest } from "../platform/permit.ts";

/** Names of query parameters whose values open doors: signed download links carry such. */
const SECRET_PARAMETER = /(token|key|secret|sig|signature|password|passwd|auth|credential|code)$/i;

/** `net.http GET https://host/file?token=[secret]`: as `describeEffect`, without the secrets that an address may carry (I5). */
export function describeForPeople(effect: EffectRequest): string {
  const { resource } = effect;
  if (resource.kind !== "url") return describeEffect(effect);
  const [path = "", query] = resource.path.split(/\?(.*)/s);
  if (query === undefined) return describeEffect(effect);
  const shown = query.split("&").map((pair) => {
    const [name = "", value] = pair.split(/=(.*)/s);
    return value !== undefined && SECRET_PARAMETER.test(name) ? `${name}=[secret]` : pair;
  });
  return describeEffect({ ...effect, resource: { ...resource, path: `${path}?${shown.join("&")}` } });
}
