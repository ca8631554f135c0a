/** The documents that are rendered from code: `npm run generate` writes them, test/generated-docs.test.ts fails when one has drifted. */
interface GeneratedDocument {
  /** Relative to the repository. */
  readonly path: string;
  /** Loads its renderer when it is asked for, so that one that is broken does not hide the others. */
  readonly render: () => Promise<string>;
}

export const generatedDocuments: readonly GeneratedDocument[] = [
  { path: "docs/errors.md", render: async () => (await import("./errors-manual.ts")).renderErrorsManual() },
  { path: "docs/carriage.md", render: async () => (await import("./carriage-manual.ts")).renderCarriageManual() },
  { path: "docs/dialects.md", render: async () => (await import("./dialects-manual.ts")).renderDialectsManual() },
  { path: "docs/protocol.md", render: async () => (await import("../protocol/manual.ts")).renderProtocolManual() },
  {
    path: "docs/configuration.md",
    render: async () => (await import("../server/platform/config/manual.ts")).renderConfigurationManual(),
  },
];
