"""The official openai SDK, unmodified, against a live gateway.

TOLLGATE_URL       https://localhost:PORT/v1
TOLLGATE_KEY       a key with the scope `chat`
TOLLGATE_CA        the CA certificate, PEM
TOLLGATE_MODEL     a real model (`demo`)
TOLLGATE_SCRIPTED  a model of the scripted backend, which says what the last user message tells it to
TOLLGATE_VECTORS   a model for embeddings

Prints `ok NAME` per check and their number at the end; exits 1 on the first that fails, with what was got.
"""

import json
import os
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

import openai

URL, KEY, CA = os.environ["TOLLGATE_URL"], os.environ["TOLLGATE_KEY"], os.environ["TOLLGATE_CA"]
MODEL, SCRIPTED = os.environ["TOLLGATE_MODEL"], os.environ["TOLLGATE_SCRIPTED"]
VECTORS = os.environ["TOLLGATE_VECTORS"]
TIMEOUT_S = 60

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def client_with(key):
    http = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=CA))
    return openai.OpenAI(base_url=URL, api_key=key, http_client=http, max_retries=0, timeout=TIMEOUT_S)


client = client_with(KEY)


def ask(text, model=SCRIPTED, **more):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


def said(completion):
    return completion.choices[0].message.content


def expect(is_so, got):
    if not is_so:
        raise AssertionError(f"got {got!r}")


def refused(kind, param, call):
    """`call` has to raise `kind`, naming `param` in its body."""
    try:
        got = call()
    except kind as error:
        expect(error.param == param and error.code and error.request_id, (error.status_code, error.body, error.request_id))
        return error
    raise AssertionError(f"no {kind.__name__}, got {got!r}")


@check
def plain():
    completion = ask("What is Tollgate?", MODEL, max_tokens=40)
    expect(said(completion) and completion.choices[0].message.role == "assistant", completion)
    expect(completion.object == "chat.completion" and completion.id.startswith("chatcmpl-"), completion)
    usage = completion.usage
    expect(usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage)
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)


@check
def stream():
    chunks = list(ask("say Hello, the world", stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    expect(text == "Hello, the world", text)
    expect(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    expect(chunks[-1].choices[0].finish_reason == "stop", chunks[-1])
    expect(all(chunk.usage is None for chunk in chunks) and len({chunk.id for chunk in chunks}) == 1, chunks)


@check
def stream_with_usage():
    chunks = list(ask("say Hello", stream=True, stream_options={"include_usage": True}))
    expect(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, chunks[-1])
    expect(all(chunk.usage is None for chunk in chunks[:-1]), chunks)


@check
def stop():
    completion = ask("say one two END three", stop=["END", "never"])
    expect(said(completion) == "one two " and completion.choices[0].finish_reason == "stop", completion)


@check
def seed():
    texts = [said(ask("random 40", temperature=1, seed=seed)) for seed in (7, 7, 8)]
    expect(texts[0] == texts[1] and texts[0] != texts[2], texts)


@check
def json_schema():
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
        "required": ["ok", "size"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    completion = ask("json", response_format=shape, max_tokens=400)
    value = json.loads(said(completion))
    expect(list(value) == ["ok", "size"] and isinstance(value["ok"], bool) and value["size"] in ("small", "large"), value)


@check
def json_object():
    value = json.loads(said(ask("json", response_format={"type": "json_object"}, max_tokens=400)))
    expect(isinstance(value, dict), value)


@check
def system_message():
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "say yes"}]
        completion = client.chat.completions.create(model=SCRIPTED, messages=messages)
        expect(said(completion) == "yes", completion)


@check
def multi_turn():
    first = ask("say one")
    messages = [
        {"role": "user", "content": "say one"},
        # As the SDK's users do: the reply goes back whole.
        first.choices[0].message.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": "say two"}]},
    ]
    completion = client.chat.completions.create(model=SCRIPTED, messages=messages)
    expect(said(completion) == "two" and completion.usage.prompt_tokens > first.usage.prompt_tokens, completion)


@check
def max_tokens():
    for name in ("max_tokens", "max_completion_tokens"):
        completion = ask("forever", **{name: 5})
        expect(completion.choices[0].finish_reason == "length" and completion.usage.completion_tokens == 5, completion)


@check
def n_is_refused():
    error = refused(openai.BadRequestError, "n", lambda: ask("say a", n=2))
    expect("`n`" in error.message, error.message)


@check
def tools_are_refused():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    refused(openai.BadRequestError, "tools", lambda: ask("say a", tools=[tool]))


@check
def wrong_key():
    stranger = client_with(KEY[:-4] + "AAAA")
    refused(openai.AuthenticationError, None, lambda: stranger.models.list())
    messages = [{"role": "user", "content": "say a"}]
    refused(openai.AuthenticationError, None, lambda: stranger.chat.completions.create(model=SCRIPTED, messages=messages))


@check
def no_such_model():
    refused(openai.NotFoundError, "model", lambda: ask("say a", "no-such-model"))
    refused(openai.NotFoundError, "model", lambda: client.models.retrieve("no-such/model"))


@check
def wrong_type():
    error = refused(openai.BadRequestError, "temperature", lambda: ask("say a", temperature="hot"))
    expect(error.code == "invalid_type", error.code)
    refused(openai.BadRequestError, "messages[0].content", lambda: ask(7))


@check
def models_list():
    names = [model.id for model in client.models.list()]
    expect(MODEL in names and SCRIPTED in names, names)


@check
def models_retrieve():
    model = client.models.retrieve(MODEL)
    expect((model.id, model.object) == (MODEL, "model") and model.created > 0 and model.owned_by, model)


@check
def cancel_mid_stream():
    chunks = ask("forever", stream=True, max_tokens=100_000)
    for _ in range(5):
        next(chunks)
    chunks.close()
    expect(said(ask("say after")) == "after", "no answer after a cancel")


@check
def logprobs():
    choice = ask("utf8 20", logprobs=True, top_logprobs=3, temperature=0).choices[0]
    tokens = choice.logprobs.content
    expect(bytes(b for token in tokens for b in token.bytes).decode() == choice.message.content, tokens)
    expect(all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens), tokens)
    chunks = list(ask("utf8 20", logprobs=True, top_logprobs=3, temperature=0, stream=True))
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    expect(streamed == tokens, streamed)
    refused(openai.BadRequestError, "top_logprobs", lambda: ask("say a", top_logprobs=3))


@check
def logit_bias():
    expect(said(ask("say xyz", logit_bias={"120": -100, "113": 20}, temperature=0)) == "q", "the bias has no effect")
    refused(openai.BadRequestError, "logit_bias.999999", lambda: ask("say a", logit_bias={"999999": 1}))


@check
def embeddings():
    def embed(texts, **more):
        return client.embeddings.create(model=VECTORS, input=texts, **more)

    texts = ["Tollgate is a gateway.", "The sun is warm today."]
    # The SDK asks for base64 on its own, and unpacks it.
    packed, plain = embed(texts), embed(texts, encoding_format="float")
    expect([entry.index for entry in packed.data] == [0, 1] and packed.model == VECTORS, packed)
    expect(packed.usage.prompt_tokens > 2 and packed.usage.total_tokens == packed.usage.prompt_tokens, packed.usage)
    for one, other in zip(packed.data, plain.data):
        expect(len(one.embedding) == len(other.embedding) > 1, len(one.embedding))
        expect(all(abs(a - b) < 1e-3 for a, b in zip(one.embedding, other.embedding)), one)
        expect(abs(sum(number * number for number in one.embedding) - 1) < 1e-3, one)
    refused(openai.BadRequestError, "input", lambda: embed([1, 2, 3]))
    refused(openai.BadRequestError, "input[1]", lambda: embed(["a", ""]))
    error = refused(openai.BadRequestError, "model", lambda: ask("say a", VECTORS))
    expect(error.code == "wrong_task", error.code)


@check
def four_at_once():
    words = ["alpha", "beta", "gamma", "delta"]
    with ThreadPoolExecutor(len(words)) as pool:
        got = list(pool.map(lambda word: said(ask(f"say {word}")), words))
    expect(got == words, got)


def main():
    for function in CHECKS:
        try:
            function()
        except Exception as error:
            print(f"FAILED {function.__name__}: {type(error).__name__}: {error}")
            sys.exit(1)
        print(f"ok {function.__name__}", flush=True)
    print(f"{len(CHECKS)} checks")


main()
