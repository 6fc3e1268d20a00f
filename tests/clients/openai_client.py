"""The openai package, unchanged, against a running server: python openai_client.py BASE_URL API_KEY.

Prints one line per case; exits 1 at the first failed assertion. Prompts come from the demo model's
small world, so greedy answers are known.
"""
import asyncio
import sys

import openai
from openai import AsyncOpenAI, OpenAI

base_url, key = sys.argv[1], sys.argv[2]
client = OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=60)
CAPITAL = [{"role": "user", "content": "Helsinki is the capital of which country?"}]
ANSWER = "Helsinki is the capital of Finland."
CASES = []


def case(f):
    CASES.append(f)
    return f


def chat(**more):
    return client.chat.completions.create(**{"model": "demo", "messages": CAPITAL, "temperature": 0, **more})


@case
def whole_answer():
    r = chat()
    c = r.choices[0]
    assert c.message.content == ANSWER, c
    assert c.message.role == "assistant" and c.finish_reason == "stop" and c.index == 0
    assert r.object == "chat.completion" and r.model == "demo" and r.id.startswith("chatcmpl-")
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.usage.completion_tokens > 5


@case
def streamed_equals_whole():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.id == chunks[0].id for c in chunks)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER, text
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert ends == ["stop"], ends
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == chat().usage.completion_tokens
    assert len(chunks) >= 4, "role, text, end and usage are separate chunks"
    assert all(c.usage is None for c in chat(stream=True)), "usage only when asked for"


@case
def logprobs():
    r = chat(logprobs=True, top_logprobs=3)
    content = r.choices[0].logprobs.content
    text = b"".join(bytes(t.bytes) for t in content).decode()
    assert text.startswith(ANSWER), text
    for t in content:
        assert t.logprob <= 0 and len(t.top_logprobs) == 3
        assert t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob >= t.top_logprobs[2].logprob
        assert t.token == t.top_logprobs[0].token, "greedy takes the best"
    streamed = [x for c in chat(stream=True, logprobs=True, top_logprobs=3) for x in (c.choices[0].logprobs.content if c.choices and c.choices[0].logprobs else [])]
    assert [x.logprob for x in streamed] == [x.logprob for x in content]


@case
def three_choices():
    story = [{"role": "user", "content": "Tell me a story."}]
    r = chat(messages=story, n=3, temperature=1.3, seed=5, max_tokens=40)
    assert sorted(c.index for c in r.choices) == [0, 1, 2]
    texts = [c.message.content for c in r.choices]
    assert len(set(texts)) > 1, texts
    again = chat(messages=story, n=3, temperature=1.3, seed=5, max_tokens=40)
    assert texts == [c.message.content for c in again.choices], "same seed, same texts"
    streamed = ["", "", ""]
    for c in chat(messages=story, n=3, temperature=1.3, seed=5, max_tokens=40, stream=True):
        for x in c.choices:
            streamed[x.index] += x.delta.content or ""
    assert streamed == texts, (streamed, texts)


@case
def seeds():
    def story(seed):
        r = chat(messages=[{"role": "user", "content": "Tell me a story."}], temperature=1.5, seed=seed, max_tokens=40)
        return r.choices[0].message.content
    assert story(1) == story(1)
    assert len({story(s) for s in range(2, 10)}) > 1, "other seeds, other stories"


@case
def stop_strings_cut_exactly():
    r = chat(stop=["tal of"])
    assert r.choices[0].message.content == "Helsinki is the capi", r.choices[0]
    assert r.choices[0].finish_reason == "stop"
    text = "".join(c.choices[0].delta.content or "" for c in chat(stop="tal of", stream=True) if c.choices)
    assert text == "Helsinki is the capi", text


@case
def length():
    r = chat(max_completion_tokens=3)
    assert r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 3


@case
def bias_and_penalties():
    first = chat(logprobs=True, max_tokens=1, extra_body={"return_token_ids": True}).choices[0]
    token = first.model_extra["token_ids"][0]
    other = chat(max_tokens=1, logit_bias={str(token): -100}).choices[0].message.content
    assert other != first.message.content
    chat(frequency_penalty=1.0, presence_penalty=-1.0, extra_body={"repetition_penalty": 1.2, "top_k": 5, "min_p": 0.05})


@case
def tools_are_rendered():
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather in a city.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    with_tools = chat(tools=[tool]).usage.prompt_tokens
    assert with_tools > chat().usage.prompt_tokens + 20


@case
def legacy_completions():
    r = client.completions.create(model="demo", prompt="The capital of", max_tokens=5, temperature=0, echo=True, logprobs=2)
    c = r.choices[0]
    assert c.text.startswith("The capital of") and r.object == "text_completion"
    assert c.logprobs.tokens[0] == "<|begin_of_text|>" and c.logprobs.token_logprobs[0] is None
    assert "".join(c.logprobs.tokens[1:]) == c.text
    assert len(c.logprobs.text_offset) == len(c.logprobs.tokens)
    ids = client.completions.create(model="demo", prompt=[2032, 39, 1368], max_tokens=2, temperature=0)
    assert ids.usage.prompt_tokens == 3
    two = client.completions.create(model="demo", prompt=["Hello", "Good"], max_tokens=2, temperature=0, n=2)
    assert [c.index for c in two.choices] == [0, 1, 2, 3]


@case
def models():
    names = [m.id for m in client.models.list()]
    assert names == ["demo"], names
    assert client.models.retrieve("demo").id == "demo"


@case
def errors_have_types():
    for wanted, status, call in [
        (openai.NotFoundError, 404, lambda: chat(model="nope")),
        (openai.NotFoundError, 404, lambda: client.models.retrieve("nope")),
        (openai.BadRequestError, 400, lambda: chat(max_tokens=0)),
        (openai.BadRequestError, 400, lambda: chat(temperature=9)),
        (openai.BadRequestError, 400, lambda: chat(extra_body={"temprature": 1})),
        (openai.BadRequestError, 400, lambda: chat(messages=[{"role": "wizard", "content": "x"}])),
        (openai.BadRequestError, 400, lambda: chat(messages=[{"role": "user", "content": "word " * 4000}])),
        (openai.AuthenticationError, 401, lambda: OpenAI(base_url=base_url + "/v1", api_key="wrong", max_retries=0).models.list()),
    ]:
        try:
            call()
        except openai.APIStatusError as e:
            assert isinstance(e, wanted) and e.status_code == status, (wanted, e.status_code, e)
            assert e.body["message"] and "type" in e.body and "param" in e.body and "code" in e.body, e.body
            assert e.request_id, "every response carries a request id"
        else:
            raise AssertionError(f"{wanted} was not raised")


@case
def many_at_once_and_hang_ups():
    async def run():
        c = AsyncOpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=120)
        alone = chat(temperature=1.0, seed=11, max_tokens=32).choices[0].message.content

        async def one(i):
            r = await c.chat.completions.create(model="demo", messages=CAPITAL, temperature=1.0, seed=11 if i % 2 else i, max_tokens=32)
            return i, r.choices[0].message.content

        async def hang_up():
            stream = await c.chat.completions.create(model="demo", messages=CAPITAL, temperature=0, stream=True, max_tokens=400, extra_body={"ignore_eos": True})
            async for _ in stream:
                break
            await stream.close()
            return 0, None

        got = await asyncio.gather(*[one(i) for i in range(24)], *[hang_up() for _ in range(8)])
        assert all(text == alone for i, text in got if i % 2), "same seed, same text, whatever else runs"
    asyncio.run(run())


for f in CASES:
    f()
    print("ok", f.__name__, flush=True)
print(f"{len(CASES)} passed, 0 failed")
