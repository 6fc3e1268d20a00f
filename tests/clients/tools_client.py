"""Tools, structured output and reasoning through the openai package, unchanged.

python tools_client.py BASE_URL API_KEY. See kit.py: every chat is also streamed and compared.
"""
import asyncio
import json
import re
from enum import Enum
from typing import Literal, Optional

import openai
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from kit import (
    Country,
    Person,CAROL, CITY, JORDAN, PARIS, SUM, THOUGHTS, TIME, TIMER, TOTAL, TWO_CITIES, WEATHER, base_url, calls,
                 case, chat, client, key, only, parts, refused, run, tool, user)

IN_PARIS = ("get_weather", {"city": "Paris"})
WITH_TIME = [TIME, WEATHER]


def named(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *names):
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(n) for n in names]}}


class Colour(str, Enum):
    red = "red"
    green = "green"


class Leaf(BaseModel):
    colour: Colour
    count: int = Field(ge=3, le=7)
    kind: Literal["oak", "elm"]
    note: Optional[str] = Field(max_length=12)


class Branch(BaseModel):
    leaves: list[Leaf] = Field(min_length=1, max_length=2)
    label: str = Field(pattern="^[A-Z]{3}-[0-9]{2}$")


class GetWeather(BaseModel):
    """Get the current weather for a city."""

    city: str = Field(description="The name of the city")


# ---- tools

@case
def auto_calls_or_talks():
    assert calls(tools=WITH_TIME) == [IN_PARIS]
    talk = only(tools=WITH_TIME, messages=user("Hello!"))
    assert talk["calls"] == [] and talk["content"] and talk["finish"] == "stop", talk
    assert calls(tools=WITH_TIME, tool_choice="auto", messages=user("Tell me the time in Oslo.")) == [("get_time", {"city": "Oslo"})]


@case
def none_writes_text():
    answer = only(tools=WITH_TIME, tool_choice="none")
    assert answer["calls"] == [] and answer["finish"] in ("stop", "length"), answer


@case
def required_calls_whatever_is_said():
    for words in ["Hello!", "Tell me a story.", "What is 2 + 2?"]:
        for name, arguments in calls(tools=WITH_TIME, tool_choice="required", messages=user(words)):
            assert name in ("get_time", "get_weather") and type(arguments["city"]) is str, (name, arguments)


@case
def a_named_tool_is_called():
    assert [name for name, _ in calls(tools=WITH_TIME, tool_choice=named("get_time"))] == ["get_time"]
    timer = calls(tools=[TIMER, WEATHER], tool_choice=named("set_timer"), messages=user("Hello!"))
    assert timer[0][0] == "set_timer" and type(timer[0][1]["minutes"]) is int, timer


@case
def only_allowed_tools_are_called():
    for mode in ["required", "auto"]:
        made = only(tools=WITH_TIME, tool_choice=allowed(mode, "get_time"))["calls"]
        assert all(name == "get_time" for name, _ in made) and (made or mode == "auto"), made
    assert calls(tools=WITH_TIME, tool_choice=allowed("required", "get_time", "get_weather"))[0] == IN_PARIS


@case
def two_calls_unless_forbidden():
    both = [IN_PARIS, ("get_weather", {"city": "Rome"})]
    assert calls(tools=[WEATHER], messages=TWO_CITIES) == both
    for choice in ["auto", "required", named("get_weather")]:
        one = calls(tools=[WEATHER], messages=TWO_CITIES, parallel_tool_calls=False, tool_choice=choice)
        assert one == both[:1], (choice, one)


@case
def results_are_answered():
    messages = list(TWO_CITIES)
    message = chat(tools=[WEATHER], messages=messages).choices[0].message
    messages.append(message)
    for call, weather in zip(message.tool_calls, [("sunny", 21), ("rainy", 9)], strict=True):
        result = json.dumps({"temperature": weather[1], "condition": weather[0]})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = only(tools=[WEATHER], messages=messages)
    assert answer["content"] == "It is sunny and 21 degrees in Paris. It is rainy and 9 degrees in Rome.", answer


@case
def strict_arguments_follow_the_schema():
    unit = {"type": "string", "enum": ["kelvin", "rankine"]}
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "unit": unit}, "required": ["city", "unit"], "additionalProperties": False}
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True, "parameters": schema}}
    (name, arguments), = calls(tools=[strict])
    assert name == "get_weather" and type(arguments["city"]) is str and arguments["unit"] in unit["enum"], arguments
    nothing = {"type": "function", "function": {"name": "ring_bell"}}
    assert calls(tools=[nothing], tool_choice="required", messages=user("Hello!")) == [("ring_bell", {})]


@case
def pydantic_tools_are_parsed():
    function = openai.pydantic_function_tool(GetWeather, name="get_weather")
    answer = client.chat.completions.parse(model="demo", messages=PARIS, temperature=0, tools=[function])
    call, = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris"), call
    assert function["function"]["strict"] is True
    assert calls(tools=[function]) == [IN_PARIS]


@case
def choices_call_each_for_itself():
    answer = chat(tools=WITH_TIME, n=2)
    assert [parts(c)["calls"] for c in answer.choices] == [[("get_weather", '{"city": "Paris"}')]] * 2
    hot = chat(tools=WITH_TIME, n=3, temperature=1.5, seed=3, tool_choice="required")
    for choice in hot.choices:
        assert choice.finish_reason in ("tool_calls", "length"), choice
        for call in choice.message.tool_calls if choice.finish_reason == "tool_calls" else []:
            assert set(json.loads(call.function.arguments)) == {"city"}, call


@case
def stop_strings_and_length_beside_tools():
    assert calls(tools=WITH_TIME, stop=["\n\n\n", "Rome"]) == [IN_PARIS]
    talk = only(tools=WITH_TIME, messages=user("Hello!"))["content"]
    word = talk.split(" ")[-1]
    assert only(tools=WITH_TIME, messages=user("Hello!"), stop=[word])["content"] == talk[: -len(word)]
    cut = only(tools=WITH_TIME, max_tokens=14)
    assert cut["finish"] == "length", cut


@case
def logprobs_beside_tools():
    answer = only(tools=WITH_TIME, logprobs=True, top_logprobs=2)
    assert answer["calls"] and all(p <= 0 for _, p in answer["logprobs"]), answer


# ---- structured output

@case
def parse_gives_pydantic_models():
    for messages, model, expected in [
        (JORDAN, Country, Country(country="Jordan", capital="Amman")),
        (CAROL, Person, Person(name="Carol", age=68, city="Lisbon")),
    ]:
        answer = client.chat.completions.parse(model="demo", messages=messages, temperature=0, response_format=model)
        assert answer.choices[0].message.parsed == expected, answer
        with client.chat.completions.stream(model="demo", messages=messages, temperature=0, response_format=model) as stream:
            events = list(stream)
            assert stream.get_final_completion().choices[0].message.parsed == expected
        kinds = {e.type for e in events}
        assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
        done, = [e for e in events if e.type == "content.done"]
        assert done.parsed == expected and done.content == answer.choices[0].message.content
        assert "".join(e.delta for e in events if e.type == "content.delta") == done.content


@case
def every_answer_is_of_its_schema():
    for seed, words in enumerate(["Hello!", "Tell me a story.", "Give me a branch as JSON."]):
        answer = client.chat.completions.parse(model="demo", messages=user(words), temperature=1.5, seed=seed, response_format=Branch, max_tokens=1000)
        assert isinstance(answer.choices[0].message.parsed, Branch), answer


@case
def streamed_tool_events():
    function = openai.pydantic_function_tool(GetWeather, name="get_weather")
    with client.chat.completions.stream(model="demo", messages=TWO_CITIES, temperature=0, tools=[function]) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [(e.name, e.parsed_arguments) for e in done] == [("get_weather", GetWeather(city=c)) for c in ("Paris", "Rome")], done
    for i, end in enumerate(done):
        pieces = [e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta" and e.index == i]
        assert "".join(pieces) == end.arguments and len(pieces) > 1, pieces
    assert final.finish_reason == "tool_calls" and len(final.message.tool_calls) == 2


@case
def async_parse_many_at_once():
    async def ask():
        async with AsyncOpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=60) as c:
            one = lambda: c.chat.completions.parse(model="demo", messages=JORDAN, temperature=0, response_format=Country)
            answers = await asyncio.gather(*[one() for _ in range(8)])
            async with c.chat.completions.stream(model="demo", messages=JORDAN, temperature=0, response_format=Country) as stream:
                answers.append(await stream.get_final_completion())
            return answers
    assert all(a.choices[0].message.parsed == Country(country="Jordan", capital="Amman") for a in asyncio.run(ask()))


@case
def json_object_and_text():
    held = {"response_format": {"type": "json_object"}}
    assert json.loads(only(messages=JORDAN, **held)["content"]) == {"country": "Jordan", "capital": "Amman"}
    for seed, words in enumerate(["Hello!", "Tell me a story.", "What is 2 + 2?"]):
        answer = only(messages=user(words), temperature=1.5, seed=seed, **held)
        if answer["finish"] == "stop":
            assert type(json.loads(answer["content"])) is dict, answer
        else:
            assert answer["content"].startswith("{"), answer
    free = only(messages=user("Hello!"))
    assert only(messages=user("Hello!"), response_format={"type": "text"}) == free


@case
def logprobs_of_json():
    schema = {"type": "json_schema", "json_schema": {"name": "country", "schema": Country.model_json_schema()}}
    answer = only(messages=JORDAN, response_format=schema, logprobs=True, top_logprobs=3)
    assert "".join(token for token, _ in answer["logprobs"]).startswith(answer["content"]), answer


GRAMMAR = 'start: "The answer is " NUMBER "."\nNUMBER: /[1-9][0-9]{0,2}/'
FORMS = [
    ({"regex": "[A-Z]{2}-[0-9]{4}"}, lambda t: re.fullmatch("[A-Z]{2}-[0-9]{4}", t)),
    ({"choice": ["violet", "amber"]}, lambda t: t in ("violet", "amber")),
    ({"grammar": GRAMMAR}, lambda t: re.fullmatch(r"The answer is [1-9][0-9]{0,2}\.", t)),
    ({"grammar": 'root ::= "yes" | "no" [0-9]'}, lambda t: re.fullmatch("yes|no[0-9]", t)),
    # Closed: behind a bare prompt the model would go on with keys of its own.
    ({"json": Leaf.model_json_schema() | {"additionalProperties": False}}, Leaf.model_validate_json),
    ({"json_object": True}, lambda t: type(json.loads(t)) is dict),
]


@case
def structured_outputs_in_chat_and_completions():
    for form, fits in FORMS:
        extra = {"structured_outputs": form}
        text = only(messages=JORDAN, extra_body=extra)["content"]
        assert fits(text), (form, text)
        request = {"model": "demo", "prompt": "Reply in JSON: ", "temperature": 0, "max_tokens": 160, "extra_body": extra}
        whole = client.completions.create(**request).choices[0]
        assert fits(whole.text) and whole.finish_reason == "stop", (form, whole)
        assert "".join(c.choices[0].text for c in client.completions.create(**request, stream=True) if c.choices) == whole.text
    text = only(messages=user("Hello!"), extra_body={"guided_regex": "[0-9]{3}"})["content"]
    assert re.fullmatch("[0-9]{3}", text), text


@case
def choices_of_a_shape():
    answer = chat(messages=user("Hello!"), n=3, temperature=1.5, seed=7, extra_body={"structured_outputs": FORMS[0][0]})
    texts = [c.message.content for c in answer.choices]
    assert all(FORMS[0][1](t) for t in texts) and len(set(texts)) > 1, texts


# ---- reasoning

@case
def thoughts_come_apart():
    answer = only(messages=SUM)
    assert (answer["reasoning"], answer["content"]) == (THOUGHTS, TOTAL), answer
    usage = chat(messages=SUM).usage
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens, usage
    assert chat(messages=JORDAN).usage.completion_tokens_details.reasoning_tokens == 0
    kept = [*SUM, {"role": "assistant", "content": TOTAL, "reasoning_content": THOUGHTS}, *user("What is 3 + 5 + 4?")]
    assert only(messages=kept)["reasoning"]
    hidden = chat(messages=SUM, extra_body={"include_reasoning": False})
    assert parts(hidden.choices[0])["reasoning"] == "" and hidden.choices[0].message.content == TOTAL
    assert hidden.usage.completion_tokens_details == usage.completion_tokens_details


@case
def thoughts_have_a_budget():
    answer = chat(messages=SUM, extra_body={"thinking_token_budget": 3})
    thoughts = parts(answer.choices[0])["reasoning"]
    assert thoughts == "7 +", "a line end and two words"
    assert 3 <= answer.usage.completion_tokens_details.reasoning_tokens <= 5, "the tags may count"
    for silent in [{"extra_body": {"thinking_token_budget": 0}}, {"reasoning_effort": "none"}]:
        answer = chat(messages=SUM, **silent)
        assert parts(answer.choices[0])["reasoning"] == "", answer
        assert answer.usage.completion_tokens_details.reasoning_tokens <= 2, answer
    assert only(messages=SUM, reasoning_effort="high") == only(messages=SUM)


@case
def shapes_begin_behind_the_thoughts():
    extra = {"structured_outputs": {"regex": "The sum is [0-9]{2}!"}}
    fits = lambda text: re.fullmatch("The sum is [0-9]{2}!", text)
    answer = only(messages=SUM, reasoning_effort="high", extra_body=extra)
    assert answer["reasoning"] == THOUGHTS and fits(answer["content"]), answer
    answer = only(messages=SUM, extra_body={**extra, "thinking_token_budget": 3})
    assert answer["reasoning"] == "7 +" and fits(answer["content"]), answer
    # Nothing here says that it should think, so thoughts cannot take the answer's place.
    answer = only(messages=SUM, extra_body=extra)
    assert answer["reasoning"] == "" and fits(answer["content"]), answer
    for effort in ["high", "none"]:
        (name, arguments), = calls(messages=SUM, tools=[TIMER], tool_choice="required", reasoning_effort=effort)
        assert name == "set_timer" and type(arguments["minutes"]) is int, arguments


# ---- refusals

def schema(value):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


AT_SCHEMA = "response_format.json_schema.schema"
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]}
TOO_LARGE = {"enum": ["x" * 1000 + str(n) for n in range(2000)]}
REFUSED = [
    ("tools[1].function.name", {"tools": [WEATHER, WEATHER]}),
    ("tools[0].function.name", {"tools": [{"type": "function", "function": {"description": "nameless"}}]}),
    ("tools[0].function.name", {"tools": [tool("get weather", "", city=CITY)]}),
    ("tool_choice.function.name", {"tools": [WEATHER], "tool_choice": named("nope")}),
    ("tool_choice.allowed_tools.tools[0].function.name", {"tools": [WEATHER], "tool_choice": allowed("auto", "nope")}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [WEATHER], "tool_choice": "sometimes"}),
    ("messages[1].tool_call_id", {"messages": [*PARIS, {"role": "tool", "tool_call_id": "call_1", "content": "{}"}]}),
    ("messages[1].tool_calls", {"messages": [*PARIS, CALLED, *PARIS]}),
    ("messages[2].tool_call_id", {"messages": [*PARIS, CALLED, {"role": "tool", "tool_call_id": "call_2", "content": "{}"}]}),
    ("tools[0].function.parameters.properties.city", {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"city": {"type": "array", "contains": {"type": "string"}}}}}}]}),
    (AT_SCHEMA, schema({"$ref": "https://example.com/schema.json"})),
    (AT_SCHEMA, schema({"type": "integer", "minimum": 3, "maximum": 2})),
    (AT_SCHEMA, schema({"type": "object", "properties": {"a": False}, "required": ["a"]})),
    (AT_SCHEMA + ".properties.a", schema({"type": "object", "properties": {"a": {"not": {"type": "string"}}}})),
    (AT_SCHEMA + ".properties.a", schema({"type": "object", "properties": {"a": {"tpye": "string"}}})),
    (AT_SCHEMA, schema(TOO_LARGE)),
    ("response_format.json_schema.name", {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ("response_format.type", {"response_format": {"type": "yaml"}}),
    ("structured_outputs.regex", {"extra_body": {"structured_outputs": {"regex": "(?=a)b"}}}),
    ("structured_outputs.grammar", {"extra_body": {"structured_outputs": {"grammar": "start: nothing"}}}),
    ("structured_outputs.choice", {"extra_body": {"structured_outputs": {"choice": []}}}),
    ("ignore_eos", {"extra_body": {"structured_outputs": {"choice": ["a"]}, "ignore_eos": True}}),
    ("thinking_token_budget", {"extra_body": {"thinking_token_budget": -1}}),
    ("reasoning_effort", {"reasoning_effort": "enormous"}),
]


@case
def refusals_name_the_field():
    for field, request in REFUSED:
        for more in [{}, {"stream": True}]:
            request = {"model": "demo", "messages": PARIS, "max_tokens": 8, **request, **more}
            refused(field, lambda: client.chat.completions.create(**request))
    two = {"structured_outputs": {"regex": "a", "choice": ["b"]}}
    refused("structured_outputs.choice", lambda: client.completions.create(model="demo", prompt="a", extra_body=two))


run()
