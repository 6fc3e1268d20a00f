"""instructor, langchain-openai and openai-agents, unchanged, against a running server.

python frameworks_client.py BASE_URL API_KEY. They ask in their own ways; prompts are the demo model's.
"""
import asyncio
import json

import agents
import instructor
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import Field

from kit import CAROL, Country, JORDAN, PARIS, Person, TWO_CITIES, base_url, case, client, key, run

WEATHER = {"Paris": ("sunny", 21), "Rome": ("rainy", 9)}
ANSWER = "It is sunny and 21 degrees in Paris."

AMMAN = Country(country="Jordan", capital="Amman")
CAROL_IS = Person(name="Carol", age=68, city="Lisbon")


def weather(city):
    condition, temperature = WEATHER[city]
    return json.dumps({"temperature": temperature, "condition": condition})


# ---- instructor

MODES = [instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA]


@case
def instructor_modes():
    for mode in MODES:
        patched = instructor.from_openai(client, mode=mode)
        for messages, model, expected in [(JORDAN, Country, AMMAN), (CAROL, Person, CAROL_IS)]:
            made = patched.chat.completions.create(model="demo", messages=list(messages), response_model=model, temperature=0, max_retries=0)
            assert isinstance(made, model), (mode, made)
            # Behind a call's name the model copies less surely than in the JSON that it was asked for.
            assert mode != instructor.Mode.JSON_SCHEMA or made.model_dump() == expected.model_dump(), made


@case
def instructor_streams_parts():
    for mode in MODES:
        patched = instructor.from_openai(client, mode=mode)
        states = list(patched.chat.completions.create_partial(model="demo", messages=list(JORDAN), response_model=Country, temperature=0, max_retries=0))
        # Its tool is another one ("PartialCountry"), so the answer may differ from the whole one's.
        last = Country.model_validate(states[-1].model_dump())
        assert len(states) > 2 and last.country, (mode, states)
        assert mode != instructor.Mode.JSON_SCHEMA or last == AMMAN, last


# ---- langchain

def llm(**more):
    return ChatOpenAI(model="demo", base_url=base_url + "/v1", api_key=key, temperature=0, max_retries=0, timeout=60, **more)


@tool
def get_weather(city: str = Field(description="The name of the city")) -> str:
    """Get the current weather for a city."""
    return weather(city)


@tool
def get_time(city: str = Field(description="The name of the city")) -> str:
    """Get the current time in a city."""
    return json.dumps({"time": "10:15"})


@case
def langchain_structured_output():
    for method, exact in [("json_schema", True), ("json_mode", True), ("function_calling", False)]:
        for strict in [None, True] if method != "json_mode" else [None]:
            asked = llm().with_structured_output(Country, method=method, strict=strict)
            made = asked.invoke(JORDAN)
            assert made == AMMAN if exact else isinstance(made, Country), (method, strict, made)
            assert list(asked.stream(JORDAN))[-1] == made, (method, strict)
    raw = llm().with_structured_output(Country, method="json_schema", include_raw=True).invoke(JORDAN)
    assert raw["parsed"] == AMMAN and raw["parsing_error"] is None, raw


def made(message):
    return [(c["name"], c["args"]) for c in message.tool_calls]


def streamed(runnable, messages):
    pieces = list(runnable.stream(messages))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    return whole


@case
def langchain_tools():
    cities = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
    tools = [get_time, get_weather]
    for request, messages, expected in [
        ({}, PARIS, cities[:1]),
        ({}, TWO_CITIES, cities),
        ({"strict": True}, PARIS, cities[:1]),
        ({"parallel_tool_calls": False}, TWO_CITIES, cities[:1]),
        ({"tool_choice": "get_weather"}, PARIS, cities[:1]),
        ({"tool_choice": "any"}, PARIS, cities[:1]),
        ({"tool_choice": "none"}, PARIS, []),
    ]:
        bound = llm().bind_tools(tools, **request)
        whole, parts = bound.invoke(messages), streamed(bound, messages)
        assert made(whole) == expected, (request, whole)
        assert made(parts) == expected and parts.content == whole.content, (request, parts)
        assert not whole.invalid_tool_calls and not parts.invalid_tool_calls
    forced = llm().bind_tools(tools, tool_choice="get_time").invoke(PARIS)
    assert {name for name, _ in made(forced)} == {"get_time"}, forced


@case
def langchain_turns():
    bound = llm().bind_tools([get_weather])
    messages = [HumanMessage(PARIS[0]["content"])]
    messages.append(streamed(bound, messages))
    for call in messages[-1].tool_calls:
        result = get_weather.invoke(call)
        assert isinstance(result, ToolMessage) and result.tool_call_id == call["id"]
        messages.append(result)
    assert bound.invoke(messages).content == ANSWER
    assert asyncio.run(bound.ainvoke(messages)).content == ANSWER


# ---- openai-agents

agents.set_tracing_disabled(True)


@agents.function_tool(name_override="get_weather", strict_mode=False)
def agent_weather(city: str) -> str:
    """Get the current weather for a city.

    Args:
        city: The name of the city
    """
    return weather(city)


def agent(c, **more):
    model = agents.OpenAIChatCompletionsModel(model="demo", openai_client=c)
    settings = agents.ModelSettings(temperature=0, max_tokens=160, **more.pop("settings", {}))
    return agents.Agent(name="Pebble", model=model, model_settings=settings, **more)


async def with_client(f):
    async with AsyncOpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=60) as c:
        return await f(c)


@case
def agents_call_tools_and_answer():
    async def ask(c):
        one = agent(c, tools=[agent_weather])
        whole = await agents.Runner.run(one, PARIS[0]["content"], max_turns=4)
        assert whole.final_output == ANSWER, whole.final_output
        kinds = [item.type for item in whole.new_items]
        assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"], kinds
        streamed = agents.Runner.run_streamed(one, PARIS[0]["content"], max_turns=4)
        deltas = [e.data.delta async for e in streamed.stream_events() if e.type == "raw_response_event" and e.data.type == "response.output_text.delta"]
        assert streamed.final_output == ANSWER and "".join(deltas) == ANSWER, (streamed.final_output, deltas)
        assert [item.type for item in streamed.new_items] == kinds
        both = await agents.Runner.run(one, TWO_CITIES[0]["content"], max_turns=4)
        assert both.final_output == "It is sunny and 21 degrees in Paris. It is rainy and 9 degrees in Rome.", both.final_output
    asyncio.run(with_client(ask))


@case
def agents_are_bounded():
    async def ask(c):
        # A choice that is never reset asks for a call in every turn.
        forced = agent(c, tools=[agent_weather], settings={"tool_choice": "get_weather"}, reset_tool_choice=False)
        try:
            await agents.Runner.run(forced, PARIS[0]["content"], max_turns=2)
        except agents.MaxTurnsExceeded:
            return
        raise AssertionError("more than 2 turns")
    asyncio.run(with_client(ask))


@case
def agents_give_typed_output():
    async def ask(c):
        result = await agents.Runner.run(agent(c, output_type=Country), JORDAN[0]["content"], max_turns=2)
        assert result.final_output == AMMAN, result.final_output
    asyncio.run(with_client(ask))


run()
