/**
 * The HTTP front: listener, access, errors. Routes live in the files it is handed; each names its audience, and one without is a bug that fails at start.
 */
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { Socket } from "node:net";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { ClientId, UserId } from "../../../protocol/ids.ts";
import { clientIdSchema } from "../../../protocol/ids.ts";
import { BugError, type GhostError, OperationalError, systemCode, toGhostError, UserError } from "../../base/errors.ts";
import type { Ids } from "../../base/clock.ts";
import { suggestion } from "../../base/text.ts";
import type { Log } from "../../platform/log.ts";
import { type Actor, type StandingPermit, THIS_MACHINE } from "../../platform/permit.ts";
import { type AccessControl, type Audience, createAccessControl, type Keys } from "./access.ts";
import { type ErrorShape, httpError } from "./errors.ts";
import { boundHalfOpen } from "./half-open.ts";
import { OpenRequests } from "./open-requests.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    audience?: Audience;
    /** The shape of its errors; OpenAI's where nothing is said. */
    errors?: ErrorShape;
  }
}

export interface RouteRow {
  readonly method: string;
  readonly path: string;
  readonly audience: Audience;
}

export interface HttpFront extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Every route with the key it asks for. */
  readonly routes: readonly RouteRow[];
  /** Requests that are being worked for. */
  open(): number;
  /** Stops taking requests; open ones may finish until they are `cut`. */
  drain(): void;
  /** Ends open requests with this error. */
  cut(reason: GhostError): void;
}

interface HttpFrontOptions {
  readonly permit: StandingPermit;
  readonly port: number;
  /** What its lines in the log begin with; `http` by default. */
  readonly name?: string;
  readonly keys: Keys;
  readonly maxBodyBytes: number;
  /** Names requests, so that an error can be found again in the log. */
  readonly ids: Ids;
  readonly log: Log;
  readonly register: readonly ((app: FastifyInstance, open: OpenRequests) => void)[];
}

/** A head or a body that takes longer comes from a broken or hostile client; uploads of the largest body over loopback take well under a second. */
const HEAD_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 60_000;
/** Above the file descriptors of common limits (1,024 soft) it would refuse itself anyway; Node raises the soft limit to the hard one. */
const MAX_CONNECTIONS = 16_384;
const HOST = "127.0.0.1";

/** @throws UserError `port_in_use` */
export async function startHttpFront(options: HttpFrontOptions): Promise<HttpFront> {
  let port = options.port;
  let isDraining = false;
  const access = createAccessControl({ keys: options.keys, port: () => port });
  const routes: RouteRow[] = [];
  const app = createApp(options, access, () => isDraining, routes);
  const open = new OpenRequests();
  for (const register of options.register) register(app, open);
  options.permit.spend({
    capability: "net.http",
    resource: { kind: "listener", address: `${HOST}:${options.port}` },
    host: THIS_MACHINE,
  });
  try {
    await app.listen({ host: HOST, port: options.port });
  } catch (error) {
    await app.close();
    const code = systemCode(error);
    if (code === "EACCES") {
      throw new UserError("usage", `port ${options.port} needs rights that you do not have; choose one above 1023`, {
        cause: error,
      });
    }
    if (code !== "EADDRINUSE") throw error;
    throw new UserError("port_in_use", `port ${options.port} on ${HOST} is taken by another program`, {
      cause: error,
      details: { port: options.port },
    });
  }
  const address = app.server.address();
  if (address === null || typeof address === "string")
    throw new BugError("internal", "the HTTP listener has no address");
  port = address.port;
  options.log.info({ event: `${options.name ?? "http"}.listening`, port, routes });
  return {
    url: `http://${HOST}:${port}`,
    port,
    routes,
    open: () => open.size,
    // Idle connections stay: what Node calls idle includes answers that have ended and are still being sent.
    drain() {
      isDraining = true;
      open.drain();
    },
    cut: (reason) => open.cut(reason),
    async [Symbol.asyncDispose]() {
      app.server.closeAllConnections();
      await app.close();
    },
  };
}

function createApp(
  options: HttpFrontOptions,
  access: AccessControl,
  isDraining: () => boolean,
  routes: RouteRow[],
): FastifyInstance {
  const app = fastify({
    bodyLimit: options.maxBodyBytes,
    logger: false,
    genReqId: () => options.ids.next("req"),
    // A HEAD route of its own for each GET route would need an audience of its own.
    exposeHeadRoutes: false,
    serverFactory: (handler) => createRawServer(handler),
    // A path that cannot be decoded never reaches the hooks below.
    frameworkErrors: (error, request, reply) => {
      const refused = refuse(access, request, "model");
      sendError(reply, refused ?? new UserError("invalid_params", `the path cannot be read: ${error.message}`));
    },
    clientErrorHandler: answerUnreadable,
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  app.addHook("onRoute", (route) => {
    const audience = route.config?.audience;
    if (audience === undefined) throw new BugError("internal", `the route ${route.url} names no audience`);
    for (const method of [route.method].flat()) routes.push({ method, path: route.url, audience });
  });
  // Node reads nothing more from a connection that asked for a WebSocket and got an answer: it would stay open for ever, and hold up the end.
  app.addHook("onResponse", ({ raw }, _reply, next) => {
    if (wantsSocket(raw)) raw.socket.destroySoon();
    next();
  });
  app.addHook("onRequest", (request, reply, next) => {
    // An unknown path asks for a key too: nobody can map what is here without one.
    const audience = request.is404 ? "model" : (request.routeOptions.config.audience ?? "face");
    const refused = refuse(access, request, audience);
    const error =
      refused ??
      (isDraining()
        ? new OperationalError("daemon_stopping", "the daemon is shutting down", { retryAfterMs: 2_000 })
        : undefined);
    if (error === undefined) next();
    else sendError(reply, error);
  });
  app.setNotFoundHandler((request, reply) => {
    const known = routes.map(({ path }) => path);
    sendError(
      reply,
      new UserError(
        "method_unknown",
        `there is no ${request.method} ${request.url.slice(0, 200)}.${suggestion(request.url, known)}`,
      ),
    );
  });
  app.setErrorHandler((thrown, request, reply) => {
    const error = translate(thrown, options.maxBodyBytes);
    if (error.family === "bug") options.log.error({ event: "http.failed", request: request.id, error });
    else options.log.debug({ event: "http.refused", request: request.id, code: error.code, message: error.message });
    sendError(reply, error);
  });
  return app;
}

function refuse(access: AccessControl, { headers, url }: FastifyRequest, audience: Audience): GhostError | undefined {
  const apiKey = headers["x-api-key"] ?? headers["x-goog-api-key"];
  return access.refuse(
    {
      host: headers.host,
      origin: headers.origin,
      authorization: headers.authorization,
      apiKey: typeof apiKey === "string" ? apiKey : undefined,
      hasKeyInAddress: /[?&]key=/.test(url),
    },
    audience,
  );
}

/** What Node's parser gave up on: it has no head that could be checked, so the answer says nothing about us. */
function answerUnreadable(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const status =
    error.code === "HPE_HEADER_OVERFLOW"
      ? "431 Request Header Fields Too Large"
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? "408 Request Timeout"
        : "400 Bad Request";
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

function wantsSocket({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}

function createRawServer(handler: Parameters<typeof createServer>[1] & {}): Server {
  const server = createServer(
    {
      headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: 75_000,
      noDelay: true,
      // Some clients offer HTTP/2 with each request; only a WebSocket is one that Node need not read as HTTP.
      shouldUpgradeCallback: wantsSocket,
    },
    handler,
  );
  server.maxConnections = MAX_CONNECTIONS;
  boundHalfOpen(server);
  return server;
}

export function sendError(reply: FastifyReply, error: GhostError): void {
  const { is404, routeOptions, id } = reply.request;
  const shape = (is404 ? undefined : routeOptions.config.errors) ?? shapeOf(reply.request);
  const { status, headers, body } = httpError(error, shape, id);
  void reply.code(status).headers(headers).send(body);
}

/** Where no route says it: what the clients of this path would read. Lists of models are asked for in three dialects. */
function shapeOf({ url, headers }: FastifyRequest): ErrorShape {
  if (url.startsWith("/api/")) return "ollama";
  if (url.startsWith("/v1beta/") || (url.startsWith("/v1/models") && headers["x-goog-api-key"] !== undefined))
    return "gemini";
  const isAnthropic =
    url.startsWith("/v1/messages") || (url.startsWith("/v1/models") && headers["anthropic-version"] !== undefined);
  return isAnthropic ? "anthropic" : "openai";
}

function translate(thrown: unknown, maxBodyBytes: number) {
  if (thrown instanceof Error && "code" in thrown) {
    if (thrown.code === "FST_ERR_CTP_BODY_TOO_LARGE") {
      return new UserError("body_too_large", `the body is larger than ${maxBodyBytes} bytes`, {
        details: { limitBytes: maxBodyBytes },
      });
    }
    if (thrown.code === "FST_ERR_CTP_INVALID_CONTENT_LENGTH")
      return new UserError("invalid_params", "the body's length is not what `content-length` says");
    if (thrown.code === "FST_ERR_CTP_EMPTY_JSON_BODY") return new UserError("invalid_json", "the body is empty");
  }
  return toGhostError(thrown);
}

/** Who acts, for an HTTP request: the daemon's user, through a client named by its user agent. */
export function actorOf(request: FastifyRequest, userId: UserId): Actor {
  const agent = /^[A-Za-z0-9_.+/-]{1,64}/.exec(request.headers["user-agent"] ?? "")?.[0] ?? "unknown";
  const client: ClientId = clientIdSchema.parse(`http:${agent}`);
  return { userId, client, via: { kind: "api", id: request.url.split("?")[0] ?? "" } };
}
