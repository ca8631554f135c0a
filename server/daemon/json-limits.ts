/** How much structure a large JSON text may hold before it is parsed at all. */
import { UserError } from "../base/errors.ts";
import { jsonExcess } from "../base/json-scan.ts";

/** Deeper than any real request; parsers and walkers that recurse stay far from the end of their stack. */
const MAX_DEPTH = 512;
/** About 60 bytes of heap each: what the largest honest request holds many times over, and a tenth of what a thread can take. */
const MAX_VALUES = 500_000;

/** @throws UserError `invalid_json` | `body_too_large` */
export function refuseExcess(json: Buffer): void {
  const excess = jsonExcess(json, { maxDepth: MAX_DEPTH, maxValues: MAX_VALUES });
  if (excess === "depth") throw new UserError("invalid_json", `the JSON is nested deeper than ${MAX_DEPTH}`);
  if (excess === "values") throw new UserError("body_too_large", `the JSON holds more than ${MAX_VALUES} values`);
}
