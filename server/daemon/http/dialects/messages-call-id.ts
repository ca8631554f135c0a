/**
 * Ids of tool calls in Anthropic's dialect: letters, digits, `_` and `-` only. Some servers make others (`functions.read:0`): those travel encoded, so that
 * a conversation which later goes to Anthropic is still valid, and come back to their maker as it wrote them.
 */

const ALLOWED = /^[A-Za-z0-9_-]+$/;
const MARK = "ghost_";

/** `functions.read:0` → `ghost_ZnVuY3Rpb25zLnJlYWQ6MA` */
export function wireCallId(id: string): string {
  return ALLOWED.test(id) && !id.startsWith(MARK) ? id : MARK + Buffer.from(id).toString("base64url");
}

/** The inverse; an id that is not ours is itself. */
export function ownCallId(id: string): string {
  if (!id.startsWith(MARK)) return id;
  const own = Buffer.from(id.slice(MARK.length), "base64url").toString("utf8");
  return wireCallId(own) === id ? own : id;
}
