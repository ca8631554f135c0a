/** Keys that clients use towards the daemon. Provider keys never travel in this direction. */
import { z } from "zod";

export const keyModelResult = z.object({
  /** Opens the model APIs and nothing else. */
  key: z.string(),
  /** The base URL for clients of OpenAI's API. */
  openaiBaseUrl: z.string(),
});
