"""Renders the goldens of the chat templates with Hugging Face transformers (real Jinja).

    python -m venv v && v/bin/pip install jinja2 transformers && v/bin/python make_goldens.py

Written once; the tests only read the result. Both inputs (templates/*.jinja and the cases below)
are our own. The clock stands at 2024-07-26 08:09:10.
"""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils as chat

HERE = pathlib.Path(__file__).parent
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 8, 9, 10)


chat.datetime = Clock

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather <now> & \"here\"",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Stadt, z.B. Köln 🌧"},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "integer", "default": 3},
                "places": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                "any": {"oneOf": [{"type": "boolean"}, {"type": ["string", "null"]}]},
            },
            "required": ["city"],
        },
    },
}
OTHER = {"type": "function", "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}}


def call(name, arguments, id="abcdefgh1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def m(role, content, **more):
    return {"role": role, "content": content, **more}


U = m("user", "  What is the weather in Köln? \n")
A = m("assistant", "It rains.")
S = m("system", "You are <b>terse</b> & \"kind\".")
CONVERSATIONS = {
    "one": dict(messages=[U]),
    "open": dict(messages=[U], add_generation_prompt=True),
    "system": dict(messages=[S, U, A, m("user", "Thanks 🙏")], add_generation_prompt=True),
    "no_prompt": dict(messages=[U, A, m("user", "More?"), m("assistant", " yes \n")]),
    "tools": dict(messages=[S, U], tools=[TOOL, OTHER], add_generation_prompt=True),
    "empty_tools": dict(messages=[U], tools=[], add_generation_prompt=True),
    "called": dict(
        messages=[
            U,
            m("assistant", None, tool_calls=[call("get_weather", {"city": "Köln", "n": 1.5, "deep": [1, None, True]})]),
            m("tool", '{"t": 12}', tool_call_id="abcdefgh1", name="get_weather"),
        ],
        tools=[TOOL],
        add_generation_prompt=True,
    ),
    "called_text": dict(
        messages=[U, m("assistant", "Let me look.", tool_calls=[call("now", {}), call("now", {"a": "b"}, "abcdefgh2")]), m("tool", "1"), m("tool", "2"), A, U],
        tools=[OTHER],
    ),
    "thinking": dict(
        messages=[U, m("assistant", "<think>\nhm\n</think>\n\nRain."), U, m("assistant", "Sun.", reasoning_content="let me see")],
    ),
    "reasoning": dict(messages=[U, m("assistant", "Sun.", reasoning="old name")]),
    "no_thinking": dict(messages=[U], add_generation_prompt=True, kwargs={"enable_thinking": False, "reasoning_effort": "high"}),
    "kwargs": dict(messages=[S, U], tools=[TOOL], kwargs={"tools_in_user_message": False, "date_string": "1 Jan 2000", "builtin_tools": ["brave", "code_interpreter"]}),
    "wrong_order": dict(messages=[A, U]),
    "two_users": dict(messages=[U, U]),
    "parts": dict(messages=[m("user", [{"type": "text", "text": " a "}, {"type": "image"}, {"type": "text", "text": "b"}])], add_generation_prompt=True),
    "documents": dict(messages=[U], documents=[{"title": "T", "text": "x", "n": 3}, {"title": "ü", "ok": True, "none": None, "f": 2.0}]),
    "continue": dict(messages=[U, m("assistant", "It rains and")], continue_final_message=True),
    "continue_space": dict(messages=[U, m("assistant", "It rains and \n")], continue_final_message=True),
    "continue_parts": dict(messages=[U, m("assistant", [{"type": "text", "text": "It ra"}])], continue_final_message=True),
    "continue_user": dict(messages=[m("user", "Once upon")], continue_final_message=True),
    "continue_empty": dict(messages=[], continue_final_message=True),
    "continue_none": dict(messages=[U, m("assistant", None)], continue_final_message=True),
    "no_messages": dict(messages=[]),
}

M = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}, {"role": "tool", "content": "x", "n": 3}]
# (template, variables): one Jinja feature each.
SNIPPETS = [
    ("{{ true }} {{ False }} {{ none }} {{ None }} {{ 1 }} {{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 123456789.5 }} {{ 1e15 }} {{ 1e16 }}", {}),
    ("{{ x }} {{ y }} {{ z }}", {"x": [1, "a", None, True, 1.5], "y": {"a": {"b": "it's"}, "c": 'q"q'}, "z": "é\n"}),
    ("{{ x ~ 1 ~ true ~ none ~ 2.0 }}", {"x": "a"}),
    ("{{ missing }}|{{ x.missing }}|{{ x['missing'] }}|{{ missing is defined }}", {"x": {}}),
    ("{{ missing.attribute }}", {}),
    ("{{ missing['attribute'] }}", {}),
    ("{{ none.attribute is defined }}{{ x.a }}|", {"x": None}),
    ("{{ 'a' + 1 }}", {}),
    ("{{ 'a' + none }}", {}),
    ("{% for a in missing %}x{% endfor %}|", {}),
    ("{{ missing | length }}", {}),
    ("{{ x[1:] }} {{ x[:-1] }} {{ x[::-1] }} {{ x[-2:] }} {{ x[::2] }} {{ x[-1] }} {{ x[5:] }}", {"x": [1, 2, 3, 4]}),
    ("{{ x[1:] }} {{ x[:-1] }} {{ x[::-1] }} {{ x[-2:] }} {{ x[::2] }} {{ x[0] }} {{ x[-1] }}", {"x": "abcdé"}),
    ("{{ x | tojson }}", {"x": {"b": 1, "a": [1.0, 1e20, 1e-7, -0.0, True, None, "é<>&'\"\\/\n\t\r\b\f\u001f\u007f\u2028 😀"]}}),
    ("{{ x | tojson(indent=2) }}", {"x": {"b": [], "a": {}, "c": [1, {"d": 2}]}}),
    ("{{ x | tojson(indent=0) }}|{{ x | tojson(indent='--') }}", {"x": [1, [2]]}),
    ("{{ x | tojson(ensure_ascii=true) }}", {"x": "é😀\u007f"}),
    ("{{ x | tojson(sort_keys=true) }}|{{ x | tojson(separators=(',', ':')) }}", {"x": {"b": 1, "a": [1, 2]}}),
    ("{{ missing | tojson }}", {}),
    ("{{ {'a': 1, 2: 'b', none: 3, true: 4} | tojson }}", {}),
    ("{{ (1, 2) | tojson }} {{ (1, 2) }} {{ (1,) }} {{ {} }} {{ [] }}", {}),
    ("{{ x.keys() | list }} {{ x.values() | list }} {{ x.items() | list }} {{ x | items | list }}", {"x": {"b": 1, "a": 2}}),
    ("{{ x.get('a') }} {{ x.get('z') }} {{ x.get('z', 5) }} {{ 'a' in x }} {{ 'z' not in x }}", {"x": {"a": 1}}),
    ("{{ x | dictsort }} {{ x | dictsort(false, 'value') }}", {"x": {"b": 1, "a": 2, "C": 0}}),
    ("{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}", {"x": {"b": 1, "a": 2}}),
    ("{% for k in x %}{{ k }};{% endfor %}", {"x": {"b": 1, "a": 2}}),
    ("{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem.role if loop.previtem is defined }}>{{ loop.nextitem.role if not loop.last }} {% endfor %}", {"messages": M}),
    ("{% for m in messages if m.content %}{{ m.role }}{{ loop.index }}{% else %}none{% endfor %}", {"messages": M}),
    ("{% for m in [] %}{% else %}empty{% endfor %}", {}),
    ("{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}", {}),
    ("{% for i in range(3) %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }}{% endfor %}", {}),
    ("{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}", {}),
    ("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}", {}),
    ("{% set x %}a{{ 1 }}b{% endset %}[{{ x }}]{% set a, b = 1, 2 %}{{ a }}{{ b }}", {}),
    ("{% macro f(a, b=2, c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}{{ f(1, c=3) }}{{ f('x', 'y')|length }}", {}),
    ("{% macro f(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call f(1) %}in{% endcall %}", {}),
    ("{% macro f(x) %}{{ x }}{% if x > 0 %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", {}),
    ("{% generation %}{% set q = 1 %}a{{ q }}{% endgeneration %}{{ q is defined }}", {}),
    ("a\n{%- generation -%}\n b \n{%- endgeneration -%}\n c", {}),
    ("  {% if true %}\n  a\n  {% endif %}\nb\n", {}),
    ("  {%+ if true %}\n  a\n  {%- endif +%}\nb\n\n", {}),
    ("{# c #}\n  {# d #}\nx {#- e -#} y\n", {}),
    ("{% raw %}{{ x }}{% endraw %}", {}),
    ("{% filter upper %}abc{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", {}),
    ("{{ x is string }}{{ x is mapping }}{{ x is iterable }}{{ x is sequence }}{{ x is number }}{{ x is none }}{{ x is defined }}{{ x is undefined }}", {"x": "s"}),
    ("{{ x is string }}{{ x is mapping }}{{ x is iterable }}{{ x is sequence }}{{ x is number }}{{ x is none }}", {"x": {}}),
    ("{{ x is string }}{{ x is mapping }}{{ x is iterable }}{{ x is sequence }}{{ x is number }}{{ x is none }}", {"x": []}),
    ("{{ x is string }}{{ x is mapping }}{{ x is iterable }}{{ x is number }}{{ x is integer }}{{ x is float }}{{ x is boolean }}", {"x": 3}),
    ("{{ x is string }}{{ x is iterable }}{{ x is number }}{{ x is integer }}{{ x is float }}{{ x is boolean }}{{ x is true }}{{ x is sameas true }}", {"x": True}),
    ("{{ x is none }}{{ x is iterable }}{{ x is false }}{{ x == none }}{{ none is not none }}", {"x": None}),
    ("{{ 3 is odd }}{{ 3 is even }}{{ 4 is divisibleby 2 }}{{ 'A' is upper }}{{ 'a' is lower }}{{ 1 is eq 1 }}{{ 2 is gt 1 }}{{ 'a' is in 'abc' }}{{ 1 in [1] }}", {}),
    ("{{ '  a b '.strip() }}|{{ '  a '.lstrip() }}|{{ ' a  '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.rstrip('ab') }}|{{ '\\n\\na'.lstrip('\\n') }}", {}),
    ("{{ 'a,b,,c'.split(',') }}{{ ' a  b c '.split() }}{{ 'a b c d'.split(' ', 1) }}{{ 'a b c '.split(None, 1) }}{{ 'a-b-c'.rsplit('-', 1) }}{{ ' a b  c'.rsplit(None, 1) }}{{ ''.split() }}{{ ''.split(',') }}{{ 'abc'.split('x')[-1] }}", {}),
    ("{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.partition('-') }}{{ 'abc'.rpartition('-') }}", {}),
    ("{{ 'a\\nb\\r\\nc\\n'.splitlines() }}{{ 'a\\nb\\n'.splitlines(true) }}", {}),
    ("{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.find('c') }}{{ 'abc'.find('z') }}{{ 'aXbX'.rfind('X') }}{{ 'abc'.index('b') }}{{ 'aaa'.count('a') }}", {}),
    ("{{ 'aBc dE'.upper() }}{{ 'aBc'.lower() }}{{ 'hello wORLD'.title() }}{{ 'hELLO'.capitalize() }}{{ 'aB'.swapcase() }}{{ 'x'.isdigit() }}{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'A'.isupper() }}", {}),
    ("{{ 'abcabc'.replace('b', 'X') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ '-'.join(['a', 'b']) }}{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'a.txt'.removesuffix('.txt') }}", {}),
    ("{{ '7'.zfill(3) }}{{ '-7'.zfill(4) }}{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '*') }}|{{ 'ab'.center(6, '-') }}", {}),
    ("{{ '{} and {}'.format('a', 1) }} {{ '%s' | format('x') }}", {}),
    ("{{ '%s-%d' % ('a', 3) }}", {}),
    ("{{ x | map(attribute='role') | join(', ') }} {{ x | map('upper') | list if false }} {{ ['a', 'b'] | map('upper') | list }}", {"x": M}),
    ("{{ x | selectattr('content') | map(attribute='role') | list }} {{ x | rejectattr('content') | map(attribute='role') | list }} {{ x | selectattr('role', 'equalto', 'user') | list | length }} {{ x | selectattr('role', 'in', ['tool', 'user']) | list | length }} {{ x | selectattr('n', 'defined') | list | length }}", {"x": M}),
    ("{{ [0, 1, '', 'a', none] | select | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [1, 2] | select('gt', 1) | list }}", {}),
    ("{{ ' a ' | trim }}|{{ 'xax' | trim('x') }}|{{ 'abc' | length }}|{{ 'abc' | first }}|{{ [1, 2] | last }}|{{ [] | first }}|{{ 'a' | default('d') }}|{{ missing | default('d') }}|{{ '' | default('d', true) }}|{{ none | default('d') }}|{{ x.y | d(3) }}", {"x": {}}),
    ("{{ 'aXa' | replace('X', '-') }}{{ 'hello world' | title }}{{ 'hELLO' | capitalize }}{{ 'a' | upper }}{{ 'A' | lower }}", {}),
    ("{{ '12' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ 3.9 | int }}{{ '3.7' | int }}{{ '1.5' | float }}{{ 'x' | float }}{{ 3 | float }}{{ 3 | string }}{{ true | string }}{{ none | string }}{{ [1, 'a'] | string }}{{ 1.0 | string }}", {}),
    ("{{ 2.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }} {{ -3 | abs }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ -7 // 2 }} {{ -7 % 3 }}", {}),
    ("{{ [3, 1, 2] | sort }}{{ ['b', 'A', 'c'] | sort }}{{ [3, 1] | sort(reverse=true) }}{{ [1, 2, 3] | reverse | list }}{{ 'abc' | reverse }}{{ [1, 1, 2] | unique | list }}{{ ['a', 'A', 'b'] | unique | list }}{{ x | sort(attribute='a') | map(attribute='a') | list }}", {"x": [{"a": 2}, {"a": 1}]}),
    ("{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}{{ [1, 2] | sum }}{{ [1, 3] | max }}{{ [1, 3] | min }}", {}),
    ("{{ 'abc' | list }}{{ {'a': 1} | list }}{{ [1, 2] | join('-') }}{{ [1, 2] | join }}{{ [1, none, true] | join(',') }}{{ 'ab' | join('-') }}", {}),
    ("{{ 'a\\nb' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}|{{ '<a>' | escape }}|{{ '<a>' | e }}|{{ '<a>' | safe }}", {}),
    ("{{ 1 if true }}{{ 1 if false }}{{ 1 if false else 2 }}{{ true and 'a' or 'b' }}{{ '' or 'c' }}{{ not '' }}{{ 1 < 2 < 3 }}{{ 'a' < 'b' }}{{ [1] + [2] }}{{ 'a' * 3 }}{{ 1 == 1.0 }}{{ 'a' == 1 }}", {}),
    ("{{ [1, 2] == [1, 2] }}{{ {'a': 1} == {'a': 1} }}{{ x == y }}{{ x in z }}", {"x": {"a": [1]}, "y": {"a": [1]}, "z": [{"a": [1]}]}),
    ("{{ x[0].content[0].text }}{{ x[0]['content'][0]['text'] }}", {"x": [{"role": "u", "content": [{"text": "t"}]}]}),
    ("{{ raise_exception('no ' ~ x) }}", {"x": "good"}),
    ("{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%dT%H:%M:%S %A %B %j %-d %I%p') }}", {}),
    ("{{ dict(a=1, b='x') }} {{ dict(a=1).a }} {{ range(3) | list }} {{ range(1, 6, 2) | list }} {{ range(3, 0, -1) | list }}", {}),
    ("{{ x.append(1) }}", {"x": []}),
    ("{{ x.update({'a': 1}) }}", {"x": {}}),
    ("{{ x.nothing() }}", {"x": {}}),
    ("{{ nothing() }}", {}),
    ("{{ 'a' | nothing }}", {}),
    ("{{ 1 / 0 }}", {}),
    ("{% if x %}", {}),
    ("{% for x in 5 %}{% endfor %}", {}),
    ("{{ x['items'] }}{% for k, v in x.items() %}{{ k }}={{ v }},{% endfor %}{{ x.get('get') }}{{ x.keys() | list }}{{ x.values() | list }}", {"x": {"items": 5, "get": 1, "keys": 2, "values": 3}}),
    ("{{ x.items is defined }}{{ x.keys is defined }}{{ x.get is defined }}", {"x": {}}),
    ("{{ x.items | length }}", {"x": {"items": [1]}}),
    ("{% for i in x recursive %}{{ i.n }}{% if i.c %}({{ loop(i.c) }}){% endif %}{% endfor %}", {"x": [{"n": 1, "c": [{"n": 2, "c": []}]}]}),
    ("{% set _ = x %}{{ _ | length }}{{ x | count }}{{ x | string | length }}", {"x": [1, 2]}),
    ("{{ \"it's\" }}{{ 'say \"x\"' }}{{ 'tab\\tnl\\n' }}{{ '\\u00e9\\x41' }}{{ 'a' 'b' }}", {}),
    ("{{ {'role': 'user', 'content': [1, {'a': none}]} }}", {}),
    ("{{ x | tojson | length }}{{ (x | tojson)[:-1] }}{{ x | tojson | replace('a', 'b') }}", {"x": {"a": 1}}),
    ("{{ x | int + 1 }}{{ 'a' ~ x | int ~ 'b' }}{{ -x | int }}{{ (x ~ '') | length + 2 }}", {"x": 3}),
    ("{{ 10 ** 20 }} {{ 9007199254740993 }} {{ x }}", {"x": 18446744073709551615}),
    ("{{ x }}", {"x": 1.5e300}),
    ("{{ [1.0, 1e20] }} {{ 1e20 ~ '' }}", {}),
    ("{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}{% for i in 'abc' %}{{ i }}.{% endfor %}", {}),
    ("{{ x | groupby('r') | map('first') | list }}", {"x": [{"r": 1}, {"r": 2}, {"r": 1}]}),
    ("{% if x is defined and x is not none and x | length > 0 %}y{% else %}n{% endif %}{{ x is not defined or x }}", {"x": ""}),
    ("{%- set content = message.content if message.content is string else message.content | map(attribute='text') | join('') -%}{{ content }}", {"message": {"content": [{"text": "a"}, {"text": "b"}]}}),
    ("{{- '\n' -}}  x  {{- ' y' }}  z\n{{ '' }}\n", {}),
    ("{% set x = [] %}{% set x = x + [1] %}{% set x = x + ['a'] %}{{ x }}{{ x | tojson }}", {}),
    ("{{ 'é😀'|length }}{{ 'é😀'[1] }}{{ 'ÉCOLE'|lower }}{{ 'straße'|upper }}", {}),
    ("{% block a %}x{% endblock %}{{ self.a() }}", {}),
    ("{% do 1 %}", {}),
    ("{% include 'x' %}", {}),
    ("{{ messages | tojson }}{{ messages[0] | string }}", {"messages": M}),
]


def outcome(render):
    try:
        return {"text": render()}
    except Exception as error:
        raised = type(error).__name__ == "TemplateError"
        return {"error": str(error), "kind": "raised" if raised else type(error).__name__}


def conversation(source, case):
    case = json.loads(json.dumps(case))
    kwargs = {**SPECIAL, **case.pop("kwargs", {})}
    messages = case.pop("messages")
    return chat.render_jinja_template([messages], chat_template=source, **case, **kwargs)[0][0]


def main():
    with open(HERE / "conversations.json", "w") as file:
        json.dump(CONVERSATIONS, file, ensure_ascii=False, indent=1)
    with open(HERE / "templates.jsonl", "w") as file:
        for path in sorted((HERE / "templates").glob("*.jinja")):
            for name, case in CONVERSATIONS.items():
                result = outcome(lambda: conversation(path.read_text(), case))
                result = {"template": path.stem, "conversation": name, **result}
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
    with open(HERE / "snippets.jsonl", "w") as file:
        for source, variables in SNIPPETS:
            values = json.loads(json.dumps(variables))
            result = outcome(lambda: chat._cached_compile_jinja_template(source).render(**values))
            result = {"template": source, "variables": variables, **result}
            file.write(json.dumps(result, ensure_ascii=False) + "\n")


main()
