/** `data:` addresses of images and files, as clients send them. */
import { UserError } from "../../base/errors.ts";

/** The text of one that is not in base64: `100%25` → `100%`. @throws UserError `invalid_params` for what is no percent-encoding */
export function percentDecoded(data: string): string {
  try {
    return decodeURIComponent(data);
  } catch (error) {
    const message = `a data: address is neither base64 nor percent-encoded: ${data.slice(0, 60)}`;
    throw new UserError("invalid_params", message, { cause: error });
  }
}
