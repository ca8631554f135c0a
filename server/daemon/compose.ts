/**
 * The composition root: makes every part, hands each what it may have, and takes them down in reverse order. Nothing else constructs products.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type GhostHandlers, PROTOCOL_VERSION } from "../../protocol/ghost-api.ts";
import { userIdSchema } from "../../protocol/ids.ts";
import type { Clock, Environment, Ids } from "../base/clock.ts";
import { DisposableStore } from "../base/disposable.ts";
import { UserError } from "../base/errors.ts";
import { type GhostLlm, type KeyPlaces, openBrain, transcriptMigrations } from "../ghostllm/open-brain.ts";
import { bootPermit, createWarden, ledgerMigrations, type Warden } from "../ghostwarden/warden.ts";
import { listSettings, loadConfig, type LoadedConfig } from "../platform/config/load.ts";
import { defaultPaths, type GhostPaths, type PathFlags } from "../platform/config/paths.ts";
import { preparePrivateFolder, readFile } from "../platform/filesystem.ts";
import { createHttpClient } from "../platform/http-client.ts";
import { type InstanceLock, lockFolder } from "../platform/instance-lock.ts";
import { type FileLog, openLog } from "../platform/log.ts";
import type { StandingPermit } from "../platform/permit.ts";
import { openSpool } from "../platform/spool.ts";
import { openDatabase, type OpenReport } from "../platform/sqlite.ts";
import { createWorkerPool } from "../platform/workers.ts";
import { createAuthorizer } from "./authorizer.ts";
import type { Caller } from "./bind-api.ts";
import { createGhostServer } from "./ghost-server.ts";
import { type BodyReader, createBodyReader } from "./http/body-reader.ts";
import { registerGemini } from "./http/dialects/gemini.ts";
import { registerMessages } from "./http/dialects/messages.ts";
import { registerModels } from "./http/dialects/models.ts";
import { registerOllama } from "./http/dialects/ollama.ts";
import { registerOpenAi } from "./http/dialects/openai.ts";
import { createResponseStore, responseMigrations, type ResponseStore } from "./http/dialects/responses-store.ts";
import { registerResponses } from "./http/dialects/responses.ts";
import type { DialectOptions } from "./http/dialects/serve.ts";
import { registerHealth } from "./http/health.ts";
import { type HttpFront, startHttpFront } from "./http/http-server.ts";
import { type KeyFiles, loadKeys } from "./keys.ts";
import { programPlaces } from "./program-places.ts";
import { type RpcServer, startRpcServer } from "./rpc/rpc-server.ts";
import { DRAIN_MS, Lifecycle } from "./lifecycle.ts";
import { createFaceAuthentication } from "./http/access.ts";
import { createStatus } from "./status.ts";
import { VERSION } from "./version.ts";

export interface Daemon {
  readonly http: string;
  readonly socket: string;
  readonly log: FileLog;
  /** Begins to drain; returns the number of answers that are still open. */
  stop(): number;
  /** Reads warden.toml again; a broken one keeps the last good rules. */
  reload(): Promise<void>;
  readonly stopped: Promise<void>;
}

export interface DaemonOptions {
  readonly flags: PathFlags;
  readonly port: number | undefined;
  readonly environment: Environment;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly nodeExecutable: string;
}

/** Until accounts exist, everything belongs to the one person who runs the daemon (I15). */
const LOCAL_USER = userIdSchema.parse("local");
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Two bodies at once: more would compete with the main loop for the cores of a small machine. */
const BODY_WORKERS = 2;
/** Each with its own routes and the shape of its own errors; what else needs more than they do is registered beside them. */
const CHAT_DIALECTS = [registerModels, registerOpenAi, registerMessages, registerGemini] as const;
const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Starts everything; what was started is taken down again when a later part fails. @throws what the parts throw, named in the catalogue. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const store = new DisposableStore();
  try {
    return await compose(options, store);
  } catch (error) {
    await store[Symbol.asyncDispose]();
    throw error;
  }
}

async function compose(options: DaemonOptions, store: DisposableStore): Promise<Daemon> {
  const { clock } = options;
  const startedAtMs = clock.now();
  const base = await openBase(options, store);
  const products = await openProducts(options, base, store);
  const lifecycle = new Lifecycle({ clock, store, log: base.log, openAnswers: () => products.llm.brain.openAnswers });
  const fronts = await openFronts(options, { ...base, ...products, startedAtMs, lifecycle }, store);
  const note = { pid: process.pid, http: fronts.http.url, socket: base.paths.socket, version: VERSION, startedAtMs };
  await Promise.all(base.locks.map((lock) => lock.announce(note)));
  base.log.info({ event: "daemon.ready", ...note, readyMs: clock.now() - startedAtMs });
  const { wardenFile } = base.paths;
  return {
    http: fronts.http.url,
    socket: base.paths.socket,
    log: base.log,
    stop: () => lifecycle.stop(),
    async reload() {
      products.warden.reload(await readText(base.permit, wardenFile));
    },
    stopped: lifecycle.stopped,
  };
}

interface Base {
  readonly paths: GhostPaths;
  readonly permit: StandingPermit;
  readonly locks: readonly InstanceLock[];
  readonly loaded: LoadedConfig;
  readonly configExists: boolean;
  readonly log: FileLog;
  readonly keyFiles: KeyFiles;
}

/** Folders, locks, settings, log, keys: what must be there before any product. */
async function openBase(options: DaemonOptions, store: DisposableStore): Promise<Base> {
  const { environment, clock, ids } = options;
  const paths = defaultPaths(environment, options.flags, PROTOCOL_VERSION);
  const permit = ownPermit(paths);
  const text = await readText(permit, paths.configFile);
  if (text === undefined && options.flags.config !== undefined) {
    throw new UserError("usage", `--config names ${paths.configFile}, and there is no such file`, {
      details: { path: paths.configFile },
    });
  }
  const loaded = loadConfig({
    text,
    file: paths.configFile,
    overrides: options.port === undefined ? {} : { port: options.port },
  });
  const locks = await lockFolders(options, paths, permit, store);
  const log = store.use(
    openLog(permit, { file: join(paths.dataDir, "ghostd.log"), level: loaded.config.log.level, clock }),
  );
  for (const message of loaded.warnings) log.warn({ event: "config.warning", message });
  const keyFiles = await loadKeys(permit, paths.dataDir, ids);
  log.redact(keyFiles.keys.model);
  log.redact(keyFiles.keys.face);
  return { paths, permit, locks, loaded, configExists: text !== undefined, log, keyFiles };
}

/** Both folders may be the same one, which is then locked once. */
async function lockFolders(
  { environment, clock }: DaemonOptions,
  paths: GhostPaths,
  permit: StandingPermit,
  store: DisposableStore,
): Promise<readonly InstanceLock[]> {
  const folders = new Map(
    [paths.runtimeDir, paths.dataDir].map((folder) => [preparePrivateFolder(permit, folder, environment.uid), folder]),
  );
  const note = { pid: process.pid, version: VERSION, startedAtMs: clock.now() };
  const locks: InstanceLock[] = [];
  for (const folder of folders.values()) locks.push(store.use(await lockFolder(permit, folder, { note, clock })));
  return locks;
}

/** The daemon's own folders; its listeners and children have permits of their own. */
function ownPermit(paths: GhostPaths): StandingPermit {
  const folder = (capability: "fs.read" | "fs.write", path: string) => ({
    capability,
    resource: { kind: "path", path } as const,
  });
  return bootPermit("own folders", [
    folder("fs.read", paths.configFile),
    folder("fs.read", paths.wardenFile),
    folder("fs.read", paths.dataDir),
    folder("fs.write", paths.dataDir),
    folder("fs.read", paths.runtimeDir),
    folder("fs.write", paths.runtimeDir),
  ]);
}

async function readText(permit: StandingPermit, file: string): Promise<string | undefined> {
  return (await readFile(permit, file, MAX_CONFIG_BYTES))?.toString("utf8");
}

interface Products {
  readonly warden: Warden;
  readonly llm: GhostLlm;
  readonly bodies: BodyReader;
  readonly responses: ResponseStore;
  readonly databaseReport: OpenReport;
}

async function openProducts(options: DaemonOptions, base: Base, store: DisposableStore): Promise<Products> {
  const { clock, ids, environment, nodeExecutable } = options;
  const { paths, permit, log, loaded } = base;
  const migrations = mergeMigrations([transcriptMigrations, ledgerMigrations, responseMigrations]);
  const { database, report } = await openDatabase(permit, {
    file: join(paths.dataDir, "ghost.db"),
    migrations,
    clock,
    log,
  });
  store.use(database);
  const rules = await readText(permit, paths.wardenFile);
  const warden = store.use(createWarden({ rules, wardenFile: paths.wardenFile, database, clock, ids, log }));
  for (const message of warden.warnings) log.warn({ event: "warden.warning", message });
  const spoolFolder = join(paths.dataDir, "spool");
  const modelsFolder = join(paths.dataDir, "models");
  for (const folder of [spoolFolder, modelsFolder]) preparePrivateFolder(permit, folder, environment.uid);
  const builtinModelsFolder = join(ROOT, "models");
  const bodies = createBodyReader(
    store.use(
      createWorkerPool({ entry: new URL("./http/body.worker.ts", import.meta.url), size: BODY_WORKERS, clock }),
    ),
  );
  const llm = await openBrain({
    config: loaded.config,
    database,
    spool: store.use(openSpool(permit, { folder: spoolFolder })),
    http: store.use(createHttpClient()),
    authorizer: createAuthorizer(warden),
    permitFor: (origin) =>
      bootPermit(`model server ${origin}`, [
        { capability: "net.http", resource: { kind: "url", method: "*", origin, path: "/" } },
      ]),
    enginePermit: bootPermit("embedded engine", [
      { capability: "cmd.exec", resource: { kind: "argv", executable: nodeExecutable, args: [], cwd: "/" } },
      { capability: "fs.read", resource: { kind: "path", path: builtinModelsFolder } },
      { capability: "fs.read", resource: { kind: "path", path: modelsFolder } },
      ...Object.values(loaded.config.providers.embedded.models).map(
        (path) => ({ capability: "fs.read", resource: { kind: "path", path } }) as const,
      ),
      { capability: "fs.write", resource: { kind: "path", path: modelsFolder } },
    ]),
    decodeRequest: (dialect, body) => bodies.readMessages(dialect, body),
    builtinModelsFolder,
    modelsFolder,
    nodeExecutable,
    ollamaDiscoveryUrl: environment.get("GHOST_OLLAMA_DISCOVERY_URL"),
    keyPlaces: keyPlaces(paths, nodeExecutable),
    programs: programPlaces(loaded.config.providers, paths.dataDir, environment),
    environment,
    clock,
    ids,
    log,
  });
  store.use(llm);
  return { warden, llm, bodies, responses: createResponseStore({ database, clock }), databaseReport: report };
}

/** Stored keys lie in the data folder, and what opens them elsewhere; the OS keyring is asked in a process of its own. */
function keyPlaces({ dataDir, stateDir }: GhostPaths, nodeExecutable: string): KeyPlaces {
  const file = join(dataDir, "provider-keys.json");
  const keyFolder = stateDir === undefined ? undefined : join(stateDir, "keys");
  const grants = [dataDir, ...(keyFolder === undefined ? [] : [keyFolder])].flatMap((path) =>
    (["fs.read", "fs.write"] as const).map((capability) => ({ capability, resource: { kind: "path", path } as const })),
  );
  const node = { kind: "argv", executable: nodeExecutable, args: [], cwd: "/" } as const;
  const permit = bootPermit("provider keys", [...grants, { capability: "cmd.exec", resource: node }]);
  return { permit, file, keyFolder };
}

/** The products' tables share one database: the nth migration is the nth of each. */
function mergeMigrations(products: readonly (readonly (readonly string[])[])[]): readonly (readonly string[])[] {
  const count = Math.max(...products.map((migrations) => migrations.length));
  return Array.from({ length: count }, (_, version) => products.flatMap((migrations) => migrations[version] ?? []));
}

interface Fronts {
  readonly http: HttpFront;
}

type World = Base & Products & { readonly startedAtMs: number; readonly lifecycle: Lifecycle };

async function openFronts(options: DaemonOptions, world: World, store: DisposableStore): Promise<Fronts> {
  const { clock, environment } = options;
  const { llm, warden, log, keyFiles, paths, loaded, bodies, lifecycle } = world;
  const { brain, transcript, weights, keys } = llm;
  const { config } = loaded;
  let rpc: RpcServer | undefined;
  const status = createStatus({
    ...world,
    ...llm,
    version: VERSION,
    clock,
    environment,
    http: () => http.url,
    clients: () => rpc?.clients ?? 0,
  });
  const aliases = Object.keys(config.routing.aliases);
  const dialectOptions = { brain, bodies, userId: LOCAL_USER, aliases, clock, log };
  const http: HttpFront = store.use(
    await startHttpFront({
      permit: bootPermit("HTTP listener", [
        { capability: "net.http", resource: { kind: "listener", address: `127.0.0.1:${config.http.port}` } },
      ]),
      port: config.http.port,
      keys: keyFiles.keys,
      maxBodyBytes: config.http.max_body_mib * 1024 * 1024,
      ids: options.ids,
      log,
      register: [
        (app, open) => {
          const dialect = { ...dialectOptions, open };
          for (const register of CHAT_DIALECTS) register(app, dialect);
          const maxBodyBytes = config.http.max_body_mib * 1024 * 1024;
          registerResponses(app, { ...dialect, store: world.responses, ids: options.ids, maxBodyBytes });
        },
        (app) => registerHealth(app, { version: VERSION, metrics: status.metrics }),
      ],
    }),
  );
  lifecycle.add(http);
  const ollama = await openOllamaFront(options, world, { dialectOptions, store });
  if (ollama !== undefined) lifecycle.add(ollama);
  const handlers = createGhostServer({
    brain,
    transcript,
    warden,
    weights,
    keys,
    log,
    clock,
    status: status.status,
    doctor: status.doctor,
    stop: () => lifecycle.stop(),
    settings: () => [...listSettings(loaded)],
    configFile: paths.configFile,
    modelKey: keyFiles.keys.model,
    httpUrl: () => http.url,
  });
  const socket = await openSocket(options, world, handlers);
  rpc = socket;
  // It ends its own work after DRAIN_MS, and closing it again waits for that.
  lifecycle.add({ open: () => 0, drain: () => void socket.close(), cut: () => {} });
  store.defer(() => socket.close());
  return { http };
}

/** The keyless listener for tools that only know Ollama; off unless the user wants it. */
async function openOllamaFront(
  { ids }: DaemonOptions,
  { loaded, log, keyFiles }: World,
  { dialectOptions, store }: { readonly dialectOptions: Omit<DialectOptions, "open">; readonly store: DisposableStore },
): Promise<HttpFront | undefined> {
  const { ollama: settings, max_body_mib: maxBodyMib } = loaded.config.http;
  if (!settings.enabled) return undefined;
  return store.use(
    await startHttpFront({
      permit: bootPermit("Ollama listener", [
        { capability: "net.http", resource: { kind: "listener", address: `127.0.0.1:${settings.port}` } },
      ]),
      port: settings.port,
      name: "ollama_http",
      keys: keyFiles.keys,
      maxBodyBytes: maxBodyMib * 1024 * 1024,
      ids,
      log,
      register: [(app, open) => registerOllama(app, { ...dialectOptions, open, allowsCloud: settings.allow_cloud })],
    }),
  );
}

function openSocket(options: DaemonOptions, world: World, handlers: GhostHandlers<Caller>): Promise<RpcServer> {
  const { clock, ids, environment } = options;
  const { paths, keyFiles, log } = world;
  return startRpcServer({
    socketPath: paths.socket,
    permit: bootPermit("socket", [
      { capability: "net.http", resource: { kind: "listener", address: paths.socket } },
      { capability: "fs.write", resource: { kind: "path", path: paths.runtimeDir } },
    ]),
    authenticate: createFaceAuthentication(keyFiles.keys.face, LOCAL_USER),
    handlers,
    version: VERSION,
    uid: environment.uid,
    log,
    clock,
    ids,
    limits: { drainMs: DRAIN_MS },
  });
}
