// The official openai SDK, unmodified, against a live gateway.
//
// TOLLGATE_URL         https://localhost:PORT/v1
// TOLLGATE_KEY         a key with the scope `chat`
// NODE_EXTRA_CA_CERTS  the CA certificate, PEM; node itself reads it
// TOLLGATE_MODEL       a real model (`demo`)
// TOLLGATE_SCRIPTED    a model of the scripted backend, which says what the last user message tells it to
// TOLLGATE_VECTORS     a model for embeddings
//
// Prints `ok NAME` per check and their number at the end; exits 1 on the first that fails, with what was got.

import OpenAI from "openai";

const { TOLLGATE_URL: baseURL, TOLLGATE_KEY: key, TOLLGATE_MODEL: MODEL, TOLLGATE_SCRIPTED: SCRIPTED } = process.env;
const { TOLLGATE_VECTORS: VECTORS } = process.env;

const clientWith = (apiKey) => new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const client = clientWith(key);

const ask = (text, more = {}) =>
  client.chat.completions.create({ model: SCRIPTED, messages: [{ role: "user", content: text }], ...more });
const said = (completion) => completion.choices[0].message.content;

function expect(isSo, got) {
  if (!isSo) throw new Error(`got ${JSON.stringify(got)}`);
}

// `call` has to reject with `kind`, naming `param` in its body.
async function refused(kind, param, call) {
  let got;
  try {
    got = await call();
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    expect((error.param ?? null) === param && error.code && error.requestID, [error.status, error.error, error.requestID]);
    return error;
  }
  throw new Error(`no ${kind.name}, got ${JSON.stringify(got)}`);
}

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const checks = {
  async plain() {
    const completion = await ask("What is Tollgate?", { model: MODEL, max_tokens: 40 });
    expect(said(completion) && completion.choices[0].message.role === "assistant", completion);
    expect(completion.object === "chat.completion" && completion.id.startsWith("chatcmpl-"), completion);
    const usage = completion.usage;
    expect(usage.prompt_tokens > 0 && usage.completion_tokens > 0, usage);
    expect(usage.total_tokens === usage.prompt_tokens + usage.completion_tokens, usage);
  },

  async stream() {
    const chunks = await collected(await ask("say Hello, the world", { stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
    expect(text === "Hello, the world", text);
    expect(chunks[0].choices[0].delta.role === "assistant", chunks[0]);
    expect(chunks.at(-1).choices[0].finish_reason === "stop", chunks.at(-1));
    expect(chunks.every((chunk) => !chunk.usage) && new Set(chunks.map((chunk) => chunk.id)).size === 1, chunks);
  },

  async stream_with_usage() {
    const chunks = await collected(await ask("say Hello", { stream: true, stream_options: { include_usage: true } }));
    expect(chunks.at(-1).choices.length === 0 && chunks.at(-1).usage.completion_tokens > 0, chunks.at(-1));
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null), chunks);
  },

  async stop() {
    const completion = await ask("say one two END three", { stop: ["END", "never"] });
    expect(said(completion) === "one two " && completion.choices[0].finish_reason === "stop", completion);
  },

  async seed() {
    const texts = [];
    for (const seed of [7, 7, 8]) texts.push(said(await ask("random 40", { temperature: 1, seed })));
    expect(texts[0] === texts[1] && texts[0] !== texts[2], texts);
  },

  async json_schema() {
    const schema = {
      type: "object",
      properties: { ok: { type: "boolean" }, size: { enum: ["small", "large"] } },
      required: ["ok", "size"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
    const value = JSON.parse(said(await ask("json", { response_format, max_tokens: 400 })));
    const fits = typeof value.ok === "boolean" && ["small", "large"].includes(value.size);
    expect(fits && Object.keys(value).join() === "ok,size", value);
  },

  async json_object() {
    const value = JSON.parse(said(await ask("json", { response_format: { type: "json_object" }, max_tokens: 400 })));
    expect(value !== null && typeof value === "object" && !Array.isArray(value), value);
  },

  async system_message() {
    for (const role of ["system", "developer"]) {
      const messages = [{ role, content: "Be brief." }, { role: "user", content: "say yes" }];
      const completion = await client.chat.completions.create({ model: SCRIPTED, messages });
      expect(said(completion) === "yes", completion);
    }
  },

  async multi_turn() {
    const first = await ask("say one");
    const messages = [
      { role: "user", content: "say one" },
      // As the SDK's users do: the reply goes back whole.
      first.choices[0].message,
      { role: "user", content: [{ type: "text", text: "say two" }] },
    ];
    const completion = await client.chat.completions.create({ model: SCRIPTED, messages });
    expect(said(completion) === "two" && completion.usage.prompt_tokens > first.usage.prompt_tokens, completion);
  },

  async max_tokens() {
    for (const name of ["max_tokens", "max_completion_tokens"]) {
      const completion = await ask("forever", { [name]: 5 });
      expect(completion.choices[0].finish_reason === "length" && completion.usage.completion_tokens === 5, completion);
    }
  },

  async n_is_refused() {
    const error = await refused(OpenAI.BadRequestError, "n", () => ask("say a", { n: 2 }));
    expect(error.message.includes("`n`"), error.message);
  },

  async tools_are_refused() {
    const tool = { type: "function", function: { name: "f", parameters: { type: "object" } } };
    await refused(OpenAI.BadRequestError, "tools", () => ask("say a", { tools: [tool] }));
  },

  async wrong_key() {
    const stranger = clientWith(`${key.slice(0, -4)}AAAA`);
    await refused(OpenAI.AuthenticationError, null, () => stranger.models.list());
    const messages = [{ role: "user", content: "say a" }];
    await refused(OpenAI.AuthenticationError, null, () => stranger.chat.completions.create({ model: SCRIPTED, messages }));
  },

  async no_such_model() {
    await refused(OpenAI.NotFoundError, "model", () => ask("say a", { model: "no-such-model" }));
    await refused(OpenAI.NotFoundError, "model", () => client.models.retrieve("no-such/model"));
  },

  async wrong_type() {
    const error = await refused(OpenAI.BadRequestError, "temperature", () => ask("say a", { temperature: "hot" }));
    expect(error.code === "invalid_type", error.code);
    await refused(OpenAI.BadRequestError, "messages[0].content", () => ask(7));
  },

  async models_list() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    expect(names.includes(MODEL) && names.includes(SCRIPTED), names);
  },

  async models_retrieve() {
    const model = await client.models.retrieve(MODEL);
    expect(model.id === MODEL && model.object === "model" && model.created > 0 && model.owned_by, model);
  },

  async cancel_mid_stream() {
    const stream = await ask("forever", { stream: true, max_tokens: 100_000 });
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      // Leaving the loop aborts the request.
      if (seen === 5) break;
    }
    expect(stream.controller.signal.aborted, "the request goes on");
    expect(said(await ask("say after")) === "after", "no answer after a cancel");
  },

  async logprobs() {
    const asked = { logprobs: true, top_logprobs: 3, temperature: 0 };
    const choice = (await ask("utf8 20", asked)).choices[0];
    const tokens = choice.logprobs.content;
    const text = new TextDecoder().decode(new Uint8Array(tokens.flatMap((token) => token.bytes)));
    expect(text === choice.message.content, tokens);
    expect(tokens.every((token) => token.logprob <= 0 && token.top_logprobs.length === 3), tokens);
    const chunks = await collected(await ask("utf8 20", { ...asked, stream: true }));
    const streamed = chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []);
    expect(JSON.stringify(streamed) === JSON.stringify(tokens), streamed);
    await refused(OpenAI.BadRequestError, "top_logprobs", () => ask("say a", { top_logprobs: 3 }));
  },

  async logit_bias() {
    expect(said(await ask("say xyz", { logit_bias: { 120: -100, 113: 20 }, temperature: 0 })) === "q", "no effect");
    await refused(OpenAI.BadRequestError, "logit_bias.999999", () => ask("say a", { logit_bias: { 999999: 1 } }));
  },

  async embeddings() {
    const embed = (input, more = {}) => client.embeddings.create({ model: VECTORS, input, ...more });
    const texts = ["Tollgate is a gateway.", "The sun is warm today."];
    // The SDK asks for base64 on its own, and unpacks it.
    const [packed, plain] = [await embed(texts), await embed(texts, { encoding_format: "float" })];
    expect(packed.data.map((entry) => entry.index).join() === "0,1" && packed.model === VECTORS, packed);
    expect(packed.usage.prompt_tokens > 2 && packed.usage.total_tokens === packed.usage.prompt_tokens, packed.usage);
    packed.data.forEach(({ embedding: one }, at) => {
      const other = plain.data[at].embedding;
      expect(one.length === other.length && one.length > 1, one.length);
      expect(one.every((number, index) => Math.abs(number - other[index]) < 1e-3), one);
      expect(Math.abs(one.reduce((sum, number) => sum + number * number, 0) - 1) < 1e-3, one);
    });
    await refused(OpenAI.BadRequestError, "input", () => embed([1, 2, 3]));
    await refused(OpenAI.BadRequestError, "input[1]", () => embed(["a", ""]));
    const error = await refused(OpenAI.BadRequestError, "model", () => ask("say a", { model: VECTORS }));
    expect(error.code === "wrong_task", error.code);
  },

  async four_at_once() {
    const words = ["alpha", "beta", "gamma", "delta"];
    const got = await Promise.all(words.map(async (word) => said(await ask(`say ${word}`))));
    expect(got.join() === words.join(), got);
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.log(`FAILED ${name}: ${error.name}: ${error.message}`);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}
console.log(`${Object.keys(checks).length} checks`);
