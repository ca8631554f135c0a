/**
 * The daemon's own parts in this process, with one database and as many users as a test wants: the daemon itself has one until accounts exist.
 * Put together as `compose.ts` does it, less locks, log file settings, fronts and body workers.
 */
import { mkdirSync } from "node:fs";
import { type GhostApi } from "../../protocol/ghost-api.ts";
import { clientIdSchema, type UserId } from "../../protocol/ids.ts";
import { DisposableStore } from "../../server/base/disposable.ts";
import { createAuthorizer } from "../../server/daemon/authorizer.ts";
import { bindGhostApi } from "../../server/daemon/bind-api.ts";
import { createGhostServer } from "../../server/daemon/ghost-server.ts";
import { parseChat } from "../../server/daemon/http/dialects/openai-request.ts";
import { type GhostLlm, openBrain, transcriptMigrations } from "../../server/ghostllm/open-brain.ts";
import { bootPermit, createWarden, ledgerMigrations, type Warden } from "../../server/ghostwarden/warden.ts";
import { loadConfig } from "../../server/platform/config/load.ts";
import { createHttpClient } from "../../server/platform/http-client.ts";
import { openLog } from "../../server/platform/log.ts";
import { openSpool } from "../../server/platform/spool.ts";
import { openDatabase } from "../../server/platform/sqlite.ts";
import { systemClock as clock, systemEnvironment, systemIds as ids } from "../../server/platform/system-clock.ts";
import { MODELS } from "./embedded.ts";
import { testFolder } from "./folder.ts";

export interface Household extends AsyncDisposable {
  readonly llm: GhostLlm;
  readonly warden: Warden;
  readonly databaseFile: string;
  /** GhostApi as this user's face has it. */
  apiOf(userId: UserId): GhostApi;
}

const never = () => {
  throw new Error("no test of users asks the daemon about itself");
};
const UNASKED = { status: never, doctor: never, stop: never, settings: never, modelKey: "", httpUrl: () => "" };

export async function openHousehold(configText: string): Promise<Household> {
  const store = new DisposableStore();
  const folder = store.use(testFolder());
  const modelsFolder = folder.join("models");
  for (const path of [modelsFolder, folder.join("spool")]) mkdirSync(path, { mode: 0o700 });
  const file = folder.join("ghost.toml");
  const { config } = loadConfig({ text: configText, file, overrides: {} });
  const grant = (capability: "fs.read" | "fs.write", path: string) =>
    ({ capability, resource: { kind: "path", path } }) as const;
  const permit = bootPermit("test", [grant("fs.read", folder.path), grant("fs.write", folder.path)]);
  const log = store.use(openLog(permit, { file: folder.join("ghostd.log"), level: "debug", clock }));
  const databaseFile = folder.join("ghost.db");
  const migrations = transcriptMigrations.map((statements, version) => [
    ...statements,
    ...(ledgerMigrations[version] ?? []),
  ]);
  const { database } = await openDatabase(permit, { file: databaseFile, migrations, clock, log });
  store.use(database);
  const rules = undefined;
  const warden = store.use(createWarden({ rules, wardenFile: folder.join("warden.toml"), database, clock, ids, log }));
  const llm = await openBrain({
    config,
    database,
    spool: store.use(openSpool(permit, { folder: folder.join("spool") })),
    http: store.use(createHttpClient()),
    authorizer: createAuthorizer(warden),
    permitFor: (origin) =>
      bootPermit("model server", [
        { capability: "net.http", resource: { kind: "url", method: "*", origin, path: "/" } },
      ]),
    enginePermit: bootPermit("no engine", [grant("fs.read", MODELS), grant("fs.read", modelsFolder)]),
    decodeRequest: async (_dialect, body) => parseChat(body).messages(),
    builtinModelsFolder: MODELS,
    modelsFolder,
    nodeExecutable: process.execPath,
    ollamaDiscoveryUrl: undefined,
    programs: {},
    keyPlaces: { permit, file: folder.join("provider-keys.json"), keyFolder: folder.join("state") },
    environment: systemEnvironment(),
    clock,
    ids,
    log,
  });
  store.use(llm);
  const handlers = createGhostServer({ ...llm, ...UNASKED, warden, log, clock, configFile: file });
  return {
    llm,
    warden,
    databaseFile,
    apiOf(userId) {
      const clientId = clientIdSchema.parse(`face-of-${userId}`);
      return bindGhostApi(
        handlers,
        { userId, clientId, clientName: `${userId}'s face` },
        { log, ids, validateResults: true },
      );
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}
