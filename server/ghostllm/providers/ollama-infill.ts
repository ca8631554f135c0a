/**
 * Infill for models whose template has no place for a suffix though they were trained for it: most GGUF files that carry a chat template only. Then
 * the prompt is sent raw, with the words that the model's family was trained on. Pure.
 *
 * 1. Only families whose words are published are here. Words of another family are text like any other to a model, and it would answer nonsense
 *    without a sign of it.
 * 2. What ends a file in a family's training ends the answer too: a raw request has no other stop than the model's own end.
 */

export interface Infill {
  readonly family: string;
  readonly prompt: (prefix: string, suffix: string) => string;
  readonly stop: readonly string[];
}

interface Family extends Infill {
  /** Matches the last part of a model's name, in lower case, with its tag: `qwen2.5-coder-7b-gguf:q4_k_m`. */
  readonly names: RegExp;
  /** Members of the family that were not trained for infill. */
  readonly except?: RegExp;
}

const families: readonly Family[] = [
  {
    // https://github.com/QwenLM/Qwen3-Coder#fill-in-the-middle-with-qwen3-coder
    family: "qwen-coder",
    names: /^qwen-?(?:2\.5|3)-coder\b/,
    prompt: (prefix, suffix) => `<|fim_prefix|>${prefix}<|fim_suffix|>${suffix}<|fim_middle|>`,
    stop: ["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
  },
  {
    // https://github.com/deepseek-ai/DeepSeek-Coder#2code-insertion
    family: "deepseek-coder",
    names: /^deepseek-coder\b/,
    prompt: (prefix, suffix) => `<｜fim▁begin｜>${prefix}<｜fim▁hole｜>${suffix}<｜fim▁end｜>`,
    stop: ["<｜end▁of▁sentence｜>", "<|EOT|>"],
  },
  {
    // https://huggingface.co/docs/transformers/model_doc/code_llama; its spaces belong to it.
    family: "codellama",
    names: /^codellama\b/,
    except: /34b|70b|python/,
    prompt: (prefix, suffix) => `<PRE> ${prefix} <SUF>${suffix} <MID>`,
    stop: ["<EOT>"],
  },
  {
    // https://huggingface.co/bigcode/starcoder2-7b; IBM's first code models share its words.
    family: "starcoder",
    names: /^(?:starcoder2?|stable-code|granite-code|granite-\d+b-code)\b/,
    prompt: (prefix, suffix) => `<fim_prefix>${prefix}<fim_suffix>${suffix}<fim_middle>`,
    stop: ["<|endoftext|>", "<file_sep>", "<repo_name>"],
  },
  {
    // https://ai.google.dev/gemma/docs/codegemma; the variants for chat have forgotten it.
    family: "codegemma",
    names: /^codegemma\b/,
    except: /instruct|-it\b/,
    prompt: (prefix, suffix) => `<|fim_prefix|>${prefix}<|fim_suffix|>${suffix}<|fim_middle|>`,
    stop: ["<|file_separator|>"],
  },
  {
    // https://www.ibm.com/granite/docs/models/granite
    family: "granite",
    names: /^granite-?(?:3\.3|4)\b/,
    prompt: (prefix, suffix) => `<|fim_prefix|>${prefix}<|fim_suffix|>${suffix}<|fim_middle|>`,
    stop: ["<|end_of_text|>", "<|fim_pad|>"],
  },
  {
    // https://docs.mistral.ai/capabilities/code_generation: the text after the cursor comes first.
    family: "codestral",
    names: /^codestral\b/,
    prompt: (prefix, suffix) => `[SUFFIX]${suffix}[PREFIX]${prefix}`,
    stop: ["</s>", "[PREFIX]", "[SUFFIX]"],
  },
];

/** `hf.co/bartowski/Qwen2.5-Coder-7B-GGUF:Q4_K_M` → how its family fills in; undefined for families that are not known. */
export function infillOf(modelName: string): Infill | undefined {
  const name = modelName.slice(modelName.lastIndexOf("/") + 1).toLowerCase();
  return families.find(({ names, except }) => names.test(name) && except?.test(name) !== true);
}
