/** The version, from package.json: one place to raise it. */
import packageJson from "../../package.json" with { type: "json" };

export const VERSION: string = packageJson.version;
