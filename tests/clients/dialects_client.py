"""The official clients of OpenAI (Chat Completions and Responses), Anthropic and Google, unchanged.

python dialects_client.py BASE_URL API_KEY [MODEL ...]. The demo model answers each of them, by itself or
behind providers: what it says does not depend on the way.
"""
import json
import sys
import time

import anthropic
import openai
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI
from pydantic import BaseModel

BASE, KEY = sys.argv[1], sys.argv[2]
MODELS = sys.argv[3:] or ["demo"]
CASES = []

oai = OpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0, timeout=60)
ant = Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=60)
goo = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=BASE, timeout=60_000))

# The newest client has no word for it, and the API still does.
COLD = {"temperature": 0}
WHO, PEBBLE = "Who are you?", "I am Pebble, a tiny demo assistant."
WEATHER = "What is the weather in Paris?"
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "The name of the city"}}, "required": ["city"]}
NAME, ABOUT = "get_weather", "Get the current weather for a city."
SUNNY = "It is sunny and 21 degrees in Paris."
RESULT = json.dumps({"city": "Paris", "condition": "sunny", "temperature": 21})
JORDAN = "Reply in JSON with keys country and capital. What is the capital of Jordan?"


class Country(BaseModel):
    country: str
    capital: str


def case(f):
    CASES.append(f)
    return f


def local(model):
    return "/" not in model


def counts(usage):
    """How much of it was held differs from one request to the next; how much it is does not."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


# ---- Chat Completions

@case
def chat_text(model):
    ask = {"model": model, "messages": [{"role": "user", "content": WHO}], "temperature": 0}
    whole = oai.chat.completions.create(**ask)
    choice, = whole.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", PEBBLE, "stop"), whole
    assert counts(whole.usage) == (14, 10, 24), whole.usage
    short = oai.chat.completions.create(**ask, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3, short
    assert PEBBLE.startswith(short.choices[0].message.content), short


@case
def chat_streams(model):
    ask = {"model": model, "messages": [{"role": "user", "content": WHO}], "temperature": 0, "stream": True}
    *chunks, last = oai.chat.completions.create(**ask, stream_options={"include_usage": True})
    assert len({chunk.id for chunk in [*chunks, last]}) == 1, last
    assert chunks[0].choices[0].delta.role == "assistant" and all(len(chunk.choices) == 1 for chunk in chunks), chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PEBBLE, chunks
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"], chunks
    assert last.choices == [] and all(chunk.usage is None for chunk in chunks), last
    assert counts(last.usage) == (14, 10, 24), last.usage
    bare = list(oai.chat.completions.create(**ask))
    assert all(chunk.choices and chunk.usage is None for chunk in bare), "usage only when asked for"


@case
def chat_tools(model):
    tools = [{"type": "function", "function": {"name": NAME, "description": ABOUT, "parameters": CITY}}]
    ask = {"role": "user", "content": WEATHER}
    usual = {"model": model, "tools": tools, "temperature": 0}
    first = oai.chat.completions.create(**usual, messages=[ask])
    choice, = first.choices
    call, = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
    assert call.id and (call.function.name, json.loads(call.function.arguments)) == (NAME, {"city": "Paris"}), call
    with oai.chat.completions.stream(**usual, messages=[ask], stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    pieced, = final.choices[0].message.tool_calls
    assert final.choices[0].finish_reason == "tool_calls" and counts(final.usage) == counts(first.usage), (final, first.usage)
    assert (pieced.function.name, json.loads(pieced.function.arguments)) == (NAME, {"city": "Paris"}), pieced
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    turns = [ask, choice.message.model_dump(exclude_none=True), result]
    second = oai.chat.completions.create(**usual, messages=turns)
    assert second.choices[0].message.content == SUNNY and second.choices[0].finish_reason == "stop", second
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens, second.usage


@case
def prompts(model):
    """A prompt is gone on with by whoever completes texts, and answered by whoever chats alone."""
    ask = {"model": model, "prompt": WHO, "temperature": 0, "max_tokens": 30}
    whole = oai.completions.create(**ask)
    choice, = whole.choices
    assert whole.object == "text_completion" and choice.text and whole.usage.completion_tokens > 0, whole
    if model.startswith(("chat/", "claude/", "google/")):
        assert (choice.text, choice.finish_reason, counts(whole.usage)) == (PEBBLE, "stop", (14, 10, 24)), whole
        short = oai.completions.create(model=model, prompt=WHO, temperature=0, max_tokens=3)
        assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3, short
        try:
            oai.completions.create(**{**ask, "prompt": [1, 2, 3]})
            raise AssertionError("token ids are no chat")
        except openai.BadRequestError as refused:
            assert refused.param == "prompt" and refused.code == "unsupported_parameter", refused
    *chunks, last = oai.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text, chunks
    assert last.choices == [] and counts(last.usage) == counts(whole.usage), (last, whole.usage)
    repeated = oai.completions.create(**ask, echo=True)
    assert repeated.choices[0].text == WHO + choice.text, repeated
    pieces = oai.completions.create(**ask, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == WHO + choice.text


@case
def chat_parsed(model):
    ask = {"model": model, "messages": [{"role": "user", "content": JORDAN}], "temperature": 0, "response_format": Country}
    parsed = oai.chat.completions.parse(**ask)
    assert parsed.choices[0].message.parsed == Country(country="Jordan", capital="Amman"), parsed
    with oai.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed, final
    assert counts(final.usage) == counts(parsed.usage) and final.usage.completion_tokens > 5, final.usage


# ---- Responses

@case
def responses_text(model):
    whole = oai.responses.create(model=model, input=WHO, temperature=0, store=False)
    assert whole.output_text == PEBBLE and whole.status == "completed", whole
    assert whole.usage.input_tokens == 14 and whole.usage.output_tokens == 10, whole.usage
    with oai.responses.stream(model=model, input=WHO, temperature=0, store=False) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == PEBBLE and final.usage == whole.usage, final
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"


@case
def responses_tools(model):
    tools = [{"type": "function", "name": NAME, "description": ABOUT, "parameters": CITY, "strict": False}]
    ask = {"role": "user", "content": WEATHER}
    first = oai.responses.create(model=model, input=[ask], tools=tools, temperature=0, store=False)
    call, = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == (NAME, {"city": "Paris"}), call
    items = [ask, call.model_dump(exclude_none=True), {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}]
    second = oai.responses.create(model=model, input=items, tools=tools, temperature=0, store=False)
    assert second.output_text == SUNNY, second.output_text


@case
def responses_parsed(model):
    parsed = oai.responses.parse(model=model, input=JORDAN, text_format=Country, temperature=0, store=False)
    assert parsed.output_parsed == Country(country="Jordan", capital="Amman"), parsed


@case
def responses_are_kept(model):
    first = oai.responses.create(model=model, input=WHO, temperature=0)
    assert oai.responses.retrieve(first.id).output_text == PEBBLE
    items = oai.responses.input_items.list(first.id).data
    assert [item.content[0].text for item in items] == [WHO], items
    with oai.responses.stream(model=model, input="What is the capital of Jordan?", previous_response_id=first.id, temperature=0) as stream:
        second = stream.get_final_response()
    assert second.previous_response_id == first.id and second.usage.input_tokens > 14 + 10, second.usage
    again = oai.responses.retrieve(second.id)
    assert again.output_text == second.output_text
    oai.responses.delete(first.id)
    try:
        oai.responses.retrieve(first.id)
    except openai.NotFoundError as error:
        assert error.code == "response_not_found", error
    else:
        raise AssertionError("it is still there")


@case
def conversations_go_on(model):
    talk = oai.conversations.create(metadata={"topic": "pebbles"})
    assert talk.id.startswith("conv_") and talk.metadata == {"topic": "pebbles"}, talk
    first = oai.responses.create(model=model, input=WHO, conversation=talk.id, temperature=0)
    assert first.output_text == PEBBLE and first.conversation.id == talk.id, first
    second = oai.responses.create(model=model, input="What is the capital of Jordan?", conversation=talk.id, temperature=0)
    assert second.usage.input_tokens > first.usage.input_tokens + 10, second.usage
    items = list(oai.conversations.items.list(talk.id, order="asc", limit=1))  # Page by page.
    assert [item.role for item in items] == ["user", "assistant"] * 2, items
    assert items[1].content[0].text == PEBBLE, items[1]
    added = oai.conversations.items.create(talk.id, items=[{"type": "message", "role": "user", "content": "Thanks."}])
    item = oai.conversations.items.retrieve(added.data[0].id, conversation_id=talk.id)
    assert item.content[0].text == "Thanks.", item
    assert oai.conversations.items.delete(item.id, conversation_id=talk.id).id == talk.id
    assert oai.conversations.update(talk.id, metadata={"topic": "stones"}).metadata == {"topic": "stones"}
    assert oai.conversations.retrieve(talk.id).created_at == talk.created_at
    assert oai.conversations.delete(talk.id).deleted
    try:
        oai.conversations.retrieve(talk.id)
    except openai.NotFoundError as error:
        assert error.code == "conversation_not_found", error
    else:
        raise AssertionError("it is still there")


@case
def responses_in_the_background(model):
    made = oai.responses.create(model=model, input=WHO, background=True, temperature=0)
    while made.status in ("queued", "in_progress"):
        time.sleep(0.02)
        made = oai.responses.retrieve(made.id)
    assert (made.status, made.output_text) == ("completed", PEBBLE), made
    events = list(oai.responses.create(model=model, input=WHO, background=True, stream=True, temperature=0))
    again = list(oai.responses.retrieve(events[0].response.id, stream=True, starting_after=2))
    assert [e.sequence_number for e in again] == [e.sequence_number for e in events[3:]], again
    assert again[-1].response.output_text == PEBBLE
    assert oai.responses.cancel(made.id).status == "completed"


@case
def responses_are_counted(model):
    if local(model):
        assert oai.responses.input_tokens.count(model=model, input=WHO).input_tokens == 14


# ---- Messages

@case
def messages_text(model):
    ask = {"model": model, "max_tokens": 40, "extra_body": COLD, "messages": [{"role": "user", "content": WHO}]}
    whole = ant.messages.create(**ask)
    assert [block.text for block in whole.content] == [PEBBLE] and whole.stop_reason == "end_turn", whole
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (14, 10), whole.usage
    with ant.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == PEBBLE and final.content[0].text == PEBBLE and final.usage.output_tokens == 10, final
    short = ant.messages.create(**{**ask, "max_tokens": 3})
    assert short.stop_reason == "max_tokens" and PEBBLE.startswith(short.content[0].text), short
    stopped = ant.messages.create(**ask, stop_sequences=[" tiny"])
    assert stopped.content[0].text == "I am Pebble, a", stopped


@case
def messages_tools(model):
    tools = [{"name": NAME, "description": ABOUT, "input_schema": CITY}]
    ask = {"role": "user", "content": WEATHER}
    rest = {"model": model, "max_tokens": 160, "extra_body": COLD, "tools": tools}
    with ant.messages.stream(**rest, messages=[ask]) as stream:
        first = stream.get_final_message()
    call, = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use" and (call.name, call.input) == (NAME, {"city": "Paris"}), first
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    turns = [ask, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ant.messages.create(**rest, messages=turns)
    assert second.content[0].text == SUNNY, second
    forced = ant.messages.create(**rest, messages=[ask], tool_choice={"type": "tool", "name": NAME})
    assert forced.content[-1].input == {"city": "Paris"}, forced


@case
def messages_agents(model):
    """What agents send: system as blocks with cache marks, many betas, a tool that the provider runs."""
    if not local(model):
        return
    ask = {
        "model": model, "max_tokens": 40,
        "system": [{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": WHO, "cache_control": {"type": "ephemeral"}}]}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}],
        "metadata": {"user_id": "somebody"}, "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    answer = ant.beta.messages.with_raw_response.create(**{**ask, "max_tokens": 2048}, betas=["interleaved-thinking-2025-05-14", "made-up-2030-01-01"])
    assert answer.headers["x-hearth-dropped"] == "tools[0]", dict(answer.headers)
    assert answer.parse().content, answer.parse()


@case
def messages_are_counted(model):
    turns = [{"role": "user", "content": WHO}]
    count = ant.messages.count_tokens(model=model, messages=turns).input_tokens
    assert count == 14 if local(model) else count > 10, count
    if local(model):
        cards = ant.models.list().data
        assert "demo" in [card.id for card in cards], cards


@case
def messages_errors(model):
    try:
        ant.messages.create(model="nobody", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error" and error.body["request_id"], error.body
    else:
        raise AssertionError("an unknown model")


# ---- Gemini

@case
def gemini_text(model):
    config = types.GenerateContentConfig(temperature=0, max_output_tokens=40)
    whole = goo.models.generate_content(model=model, contents=WHO, config=config)
    assert whole.text == PEBBLE and whole.candidates[0].finish_reason == "STOP", whole
    usage = whole.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count) == (14, 10), usage
    chunks = list(goo.models.generate_content_stream(model=model, contents=WHO, config=config))
    assert "".join(chunk.text or "" for chunk in chunks) == PEBBLE, chunks
    assert chunks[-1].usage_metadata.candidates_token_count == 10, chunks[-1]


@case
def gemini_tools(model):
    declaration = types.FunctionDeclaration(name=NAME, description=ABOUT, parameters_json_schema=CITY)
    config = types.GenerateContentConfig(temperature=0, max_output_tokens=160, tools=[types.Tool(function_declarations=[declaration])],
                                         automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
    ask = types.Content(role="user", parts=[types.Part(text=WEATHER)])
    first = goo.models.generate_content(model=model, contents=[ask], config=config)
    call, = first.function_calls
    assert (call.name, call.args) == (NAME, {"city": "Paris"}), call
    result = types.Part.from_function_response(name=NAME, response=json.loads(RESULT))
    turns = [ask, first.candidates[0].content, types.Content(role="user", parts=[result])]
    second = goo.models.generate_content(model=model, contents=turns, config=config)
    # A result is an object here: the demo reads its own spelling of JSON better than Google's.
    assert second.text.startswith("It is sunny"), second


@case
def gemini_parsed(model):
    config = types.GenerateContentConfig(temperature=0, max_output_tokens=80, response_mime_type="application/json", response_schema=Country)
    parsed = goo.models.generate_content(model=model, contents=JORDAN, config=config).parsed
    assert parsed == Country(country="Jordan", capital="Amman"), parsed


@case
def gemini_is_counted(model):
    count = goo.models.count_tokens(model=model, contents=WHO).total_tokens
    assert count == 14 if local(model) else count > 10, count


failed = 0
for model in MODELS:
    for f in CASES:
        try:
            f(model)
            print(f"ok {model} {f.__name__}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED {model} {f.__name__}: {type(error).__name__}: {str(error)[:600]}", flush=True)
print(f"{len(CASES) * len(MODELS) - failed} passed, {failed} failed")
sys.exit(failed > 0)
