/** The settings in force. */
import { z } from "zod";

export const settingsGetResult = z.object({
  file: z.string(),
  settings: z.array(
    z.object({
      /** Its path in ghost.toml, for example `http.port`. */
      path: z.string(),
      value: z.json(),
      source: z.enum(["default", "file", "flag"]),
    }),
  ),
});
