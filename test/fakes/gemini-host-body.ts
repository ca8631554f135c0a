/**
 * The request bodies of the Gemini API that the fake models, field by field, from the public API's types, in camelCase as its clients write them. What no
 * field of the API is called is refused; how fields depend on each other is in `gemini-host-rules.ts`.
 */
import { z } from "zod";

const functionCall = z.strictObject({
  id: z.string().optional(),
  name: z.string(),
  args: z.record(z.string(), z.unknown()).optional(),
});

const blob = z.strictObject({ mimeType: z.string(), data: z.base64(), displayName: z.string().optional() });

const functionResponse = z.strictObject({
  id: z.string().optional(),
  name: z.string(),
  response: z.record(z.string(), z.unknown()),
  parts: z.array(z.strictObject({ inlineData: blob.optional(), fileData: z.looseObject({}).optional() })).optional(),
  scheduling: z.string().optional(),
  willContinue: z.boolean().optional(),
});

const part = z.strictObject({
  text: z.string().optional(),
  thought: z.boolean().optional(),
  thoughtSignature: z.string().optional(),
  functionCall: functionCall.optional(),
  functionResponse: functionResponse.optional(),
  inlineData: blob.optional(),
  fileData: z
    .strictObject({ fileUri: z.string(), mimeType: z.string().optional(), displayName: z.string().optional() })
    .optional(),
  mediaResolution: z.looseObject({}).optional(),
  videoMetadata: z.looseObject({}).optional(),
  partMetadata: z.looseObject({}).optional(),
});

const content = z.strictObject({ role: z.string().optional(), parts: z.array(part).optional() });

/** The subset of OpenAPI that `parameters` and `responseSchema` know. */
const openApiSchema = z.strictObject({
  type: z.string().optional(),
  format: z.string().optional(),
  title: z.string().optional(),
  description: z.string().optional(),
  nullable: z.boolean().optional(),
  enum: z.array(z.string()).optional(),
  required: z.array(z.string()).optional(),
  propertyOrdering: z.array(z.string()).optional(),
  default: z.unknown().optional(),
  example: z.unknown().optional(),
  pattern: z.string().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  minItems: z.union([z.string(), z.number()]).optional(),
  maxItems: z.union([z.string(), z.number()]).optional(),
  minLength: z.union([z.string(), z.number()]).optional(),
  maxLength: z.union([z.string(), z.number()]).optional(),
  minProperties: z.union([z.string(), z.number()]).optional(),
  maxProperties: z.union([z.string(), z.number()]).optional(),
  get properties() {
    return z.record(z.string(), openApiSchema).optional();
  },
  get items() {
    return openApiSchema.optional();
  },
  get anyOf() {
    return z.array(openApiSchema).optional();
  },
});

const functionDeclaration = z.strictObject({
  name: z.string(),
  description: z.string().optional(),
  parameters: openApiSchema.optional(),
  parametersJsonSchema: z.unknown().optional(),
  response: openApiSchema.optional(),
  responseJsonSchema: z.unknown().optional(),
  behavior: z.string().optional(),
});

/** Tools that Google runs beside functions: taken, and never called. */
const tool = z.strictObject({
  functionDeclarations: z.array(functionDeclaration).optional(),
  googleSearch: z.looseObject({}).optional(),
  urlContext: z.looseObject({}).optional(),
  codeExecution: z.looseObject({}).optional(),
});

const generationConfig = z.strictObject({
  temperature: z.number().min(0).max(2).optional(),
  topP: z.number().min(0).max(1).optional(),
  topK: z.number().optional(),
  candidateCount: z.literal(1).optional(),
  maxOutputTokens: z.int().positive().optional(),
  stopSequences: z.array(z.string()).optional(),
  seed: z.int().optional(),
  presencePenalty: z.number().optional(),
  frequencyPenalty: z.number().optional(),
  responseMimeType: z.enum(["text/plain", "application/json", "text/x.enum"]).optional(),
  responseSchema: openApiSchema.optional(),
  responseJsonSchema: z.unknown().optional(),
  responseModalities: z.array(z.literal("TEXT")).optional(),
  responseLogprobs: z.literal(false).optional(),
  mediaResolution: z.string().optional(),
  thinkingConfig: z
    .strictObject({
      includeThoughts: z.boolean().optional(),
      thinkingBudget: z.int().optional(),
      thinkingLevel: z.enum(["MINIMAL", "LOW", "MEDIUM", "HIGH"]).optional(),
    })
    .optional(),
});

export const generateBody = z.strictObject({
  contents: z.array(content).optional(),
  systemInstruction: content.optional(),
  tools: z.array(tool).optional(),
  toolConfig: z
    .strictObject({
      functionCallingConfig: z
        .strictObject({
          mode: z.enum(["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"]).optional(),
          allowedFunctionNames: z.array(z.string()).optional(),
        })
        .optional(),
    })
    .optional(),
  generationConfig: generationConfig.optional(),
  safetySettings: z.array(z.strictObject({ category: z.string(), threshold: z.string() })).optional(),
  cachedContent: z.string().optional(),
  serviceTier: z.enum(["unspecified", "flex", "standard", "priority"]).optional(),
  continuationToken: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  store: z.boolean().optional(),
});

/** Either the contents alone or a whole request, with its model. */
export const geminiCountBody = z.strictObject({
  contents: z.array(content).optional(),
  generateContentRequest: generateBody.extend({ model: z.string() }).optional(),
});

export const geminiEmbedBody = z.strictObject({
  requests: z
    .array(
      z.strictObject({
        model: z.string(),
        content,
        taskType: z.string().optional(),
        title: z.string().optional(),
        outputDimensionality: z.int().positive().optional(),
      }),
    )
    .min(1),
});

export type GenerateBody = z.infer<typeof generateBody>;
export type GeminiContent = z.infer<typeof content>;
export type GeminiPart = z.infer<typeof part>;
