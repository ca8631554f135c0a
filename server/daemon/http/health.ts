/** `/healthz` for anybody on this machine, `/metrics` (Prometheus text format 0.0.4) for the holder of the face credential. */
import type { FastifyInstance } from "fastify";

export interface Metric {
  readonly name: string;
  readonly kind: "counter" | "gauge";
  readonly help: string;
  readonly value: number;
}

export function registerHealth(
  app: FastifyInstance,
  options: { readonly version: string; readonly metrics: () => readonly Metric[] },
): void {
  app.route({
    method: "HEAD",
    url: "/",
    config: { audience: "none" },
    handler: (_request, reply) => reply.code(200).send(),
  });
  app.get("/healthz", { config: { audience: "none" } }, () => ({ status: "ok", version: options.version }));
  app.get("/metrics", { config: { audience: "face" } }, (_request, reply) => {
    const lines = options
      .metrics()
      .flatMap(({ name, kind, help, value }) => [
        `# HELP ${name} ${help}`,
        `# TYPE ${name} ${kind}`,
        `${name} ${value}`,
      ]);
    return reply.type("text/plain; version=0.0.4").send(`${lines.join("\n")}\n`);
  });
}
