"""What the client scripts share: cases, the demo model's prompts, and whole == streamed.

A script is called with BASE_URL API_KEY, prints one line per case and exits 1 if one failed.
"""
import json
import sys
import time
import traceback

import openai
from openai import OpenAI
from pydantic import BaseModel

base_url, key = sys.argv[1], sys.argv[2]
client = OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=60)
CASES = []


class Country(BaseModel):
    country: str
    capital: str


class Person(BaseModel):
    name: str
    age: int
    city: str


def case(f):
    CASES.append(f)
    return f


def run():
    failed = 0
    for f in CASES:
        start = time.monotonic()
        try:
            f()
            print(f"ok {f.__name__} ({time.monotonic() - start:.2f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {f.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CASES) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


def user(text):
    return [{"role": "user", "content": text}]


def tool(name, description, **parameters):
    """A tool whose parameters are all required: name=(type, description)."""
    schema = {"type": "object", "properties": {}, "required": list(parameters)}
    for parameter, (kind, text) in parameters.items():
        schema["properties"][parameter] = {"type": kind, "description": text} if text else {"type": kind}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


# As the model learned them: their descriptions are part of the prompt.
CITY = ("string", "The name of the city")
WEATHER = tool("get_weather", "Get the current weather for a city.", city=CITY)
TIME = tool("get_time", "Get the current time in a city.", city=CITY)
TIMER = tool("set_timer", "Set a timer.", minutes=("integer", ""))
PARIS = user("What is the weather in Paris?")
TWO_CITIES = user("What is the weather in Paris and in Rome?")
JORDAN = user("Reply in JSON with keys country and capital. What is the capital of Jordan?")
CAROL = user("Extract name, age and city as JSON. Carol works as a nurse in Lisbon. Carol is 68 years old and likes the colour purple.")
SUM = [{"role": "system", "content": "Think step by step."}, *user("What is 7 + 27 + 14?")]
THOUGHTS, TOTAL = "7 + 27 = 34. 34 + 14 = 48.", "7 + 27 + 14 = 48"


def parts(choice):
    """What an answer says, as plain data. Ids of calls differ from one request to the next."""
    message = choice.message
    return {
        "content": message.content or "",
        "reasoning": (message.model_extra or {}).get("reasoning_content") or "",
        "calls": [(c.function.name, c.function.arguments) for c in message.tool_calls or []],
        "finish": choice.finish_reason,
        "logprobs": [(t.token, t.logprob) for t in (choice.logprobs and choice.logprobs.content) or []],
    }


class Merged:
    """The choices of a stream, put together as the reference says: by index, arguments in pieces."""

    def __init__(self, chunks):
        self.by_index, self.usage, ids = {}, None, set()
        for chunk in chunks:
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self.add(choice, ids)

    def add(self, choice, ids):
        new = {"content": "", "reasoning": "", "calls": [], "finish": None, "logprobs": []}
        at = self.by_index.setdefault(choice.index, new)
        assert at["finish"] is None, "nothing comes behind the end"
        delta = choice.delta
        at["content"] += delta.content or ""
        at["reasoning"] += (delta.model_extra or {}).get("reasoning_content") or ""
        for piece in delta.tool_calls or []:
            if piece.index == len(at["calls"]):
                assert piece.id and piece.id not in ids and piece.type == "function", piece
                ids.add(piece.id)
                at["calls"].append((piece.function.name, ""))
            else:
                assert piece.index == len(at["calls"]) - 1, "calls come one behind the other"
                assert not piece.id and not piece.function.name, "id and name come once"
            name, arguments = at["calls"][-1]
            at["calls"][-1] = (name, arguments + (piece.function.arguments or ""))
        at["finish"] = choice.finish_reason
        at["logprobs"] += [(t.token, t.logprob) for t in (choice.logprobs and choice.logprobs.content) or []]


def chat(**request):
    """The whole answer, after it was found equal to the streamed one."""
    request = {"model": "demo", "messages": PARIS, "temperature": 0, "max_tokens": 160, **request}
    whole = client.chat.completions.create(**request)
    stream = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    merged = Merged(stream)
    assert [c.index for c in whole.choices] == sorted(merged.by_index), merged.by_index
    for choice in whole.choices:
        assert parts(choice) == merged.by_index[choice.index], (parts(choice), merged.by_index[choice.index])
    for count in ["prompt_tokens", "completion_tokens", "completion_tokens_details"]:
        assert getattr(whole.usage, count) == getattr(merged.usage, count), (whole.usage, merged.usage)
    ids = [c.id for choice in whole.choices for c in choice.message.tool_calls or []]
    assert len(set(ids)) == len(ids)
    return whole


def only(**request):
    """The one choice of a chat, as plain data."""
    answer = chat(**request)
    assert len(answer.choices) == 1
    return parts(answer.choices[0])


def calls(**request):
    """The calls of an answer that is nothing but calls, their arguments read."""
    answer = only(**request)
    assert answer["finish"] == "tool_calls" and answer["content"] == "", answer
    return [(name, json.loads(arguments)) for name, arguments in answer["calls"]]


def refused(field, send, *words):
    """The request is answered with 400, and `param` names the field."""
    try:
        send()
    except openai.BadRequestError as e:
        assert e.param == field, (e.param, field, e.message)
        assert all(word in e.message for word in words), (words, e.message)
    else:
        raise AssertionError(f"{field} was not refused")
