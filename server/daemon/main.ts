/**
 * The file that `ghostd` is started with. It prepares the process, then loads the daemon (`ghostd.ts`), in this order because
 * 1. only what is loaded after `enableCompileCache` comes from the cache: without type stripping and compiling, a start takes half the time and the
 *    process some 20 MB less. The cache lies with the code, whose owner alone can write to it: who could change the one could change the other. Where
 *    nobody can (a system-wide installation), everything works without it.
 * 2. what is loaded lives for ever: a young generation that does not grow meanwhile moves it to the old one at once. `young-generation.ts` goes on
 *    from there.
 */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";

setFlagsFromString("--semi-space-growth-factor=1");
enableCompileCache(fileURLToPath(new URL("../../.cache/compile", import.meta.url)));
const { runGhostd } = await import("./ghostd.ts");
// Whatever still holds the loop (a pooled connection, an idle worker) must not keep a stopped daemon alive.
process.exit(await runGhostd());
