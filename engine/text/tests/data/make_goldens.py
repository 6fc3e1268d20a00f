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

# One feature per line below, more of what Python's Jinja has than the table above.
V = {"x": [{"role": "user", "n": 2, "t": "b"}, {"role": "tool", "n": 1, "t": "a"}, {"role": "user", "n": 3, "t": "C"}], "s": "Hello, World", "d": {"b": 1, "a": [1, 2], "C": None}, "l": [3, 1, 2], "m": "a\nb\n\nc\n"}
MORE = """
{{ s[-1] }}{{ s[-3:] }}{{ s[:-3] }}{{ s[::-2] }}{{ s[5:1:-1] }}{{ s[100:] }}|{{ s[:100] }}
{{ l[::-1] }}{{ l[-2::-1] }}{{ l[2:0:-1] }}{{ l[:-5] }}{{ l[-5:] }}{{ l[1:-1] }}{{ l[::-2] }}
{{ l[0:2][::-1] }}{{ l[-1:][0] }}{{ (1, 2, 3)[1:] }}{{ (1, 2, 3)[::-1] }}
{{ s[9:0:-3] }}|{{ s[:0:-1] }}|{{ s[-1:-4:-1] }}
{{ s.index('W') }}{{ s.find('o', 5) }}{{ s.rfind('o') }}{{ s.rindex('l') }}{{ s.count('l') }}{{ s.find('zz') }}
{{ s.index('zz') }}
{{ s.rindex('zz') }}
{{ s.startswith('Hell') }}{{ s.startswith('World', 7) }}{{ s.endswith('ld') }}{{ s.startswith(('x', 'H')) }}
{{ s.upper() }}{{ s.lower() }}{{ s.title() }}{{ s.capitalize() }}{{ s.swapcase() }}{{ s.casefold() }}
{{ s.replace('l', 'L') }}{{ s.replace('l', 'L', 1) }}{{ s.replace('', '-') }}{{ s.replace('zz', 'y') }}
{{ s.split() }}{{ s.split('o') }}{{ s.split('o', 1) }}{{ s.split(',')[1].strip() }}{{ s.rsplit('o', 1) }}{{ s.split(sep='o', maxsplit=1) }}
{{ s.partition(', ') }}{{ s.rpartition('o') }}{{ s.partition('zz') }}{{ s.rpartition('zz') }}
{{ m.splitlines() }}{{ m.splitlines(True) }}{{ m.splitlines(keepends=true) }}{{ ''.splitlines() }}
{{ ' x '.strip() }}|{{ ' x '.lstrip() }}|{{ ' x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xyaxy'.lstrip('xy') }}|{{ 'a\\n\\n'.rstrip('\\n') }}|
{{ 'abc'.isalpha() }}{{ ''.isalpha() }}{{ 'ab1'.isalnum() }}{{ '12'.isdigit() }}{{ '12'.isnumeric() }}{{ '12'.isdecimal() }}{{ 'a'.islower() }}{{ 'A'.isupper() }}{{ ' '.isspace() }}{{ 'Ab Cd'.istitle() }}{{ 'ab'.isidentifier() }}{{ 'ab'.isascii() }}{{ 'é'.isascii() }}
{{ 'ab'.center(7) }}|{{ 'ab'.ljust(5, '.') }}|{{ 'ab'.rjust(5) }}|{{ '42'.zfill(5) }}|{{ '+42'.zfill(5) }}|
{{ 'a\\tb'.expandtabs(4) }}|{{ 'a\\tb'.expandtabs() }}
{{ ', '.join(['a', 'b']) }}{{ ''.join(x | map(attribute='t')) }}{{ '-'.join('abc') }}
{{ ', '.join([1, 2]) }}
{{ '{0} {1} {0}'.format('a', 'b') }}{{ '{}-{}'.format(1, 2.5) }}{{ '{name}'.format(name='n') }}
{{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}'.format('a', 'b', 'c', 42, 3.14159) }}
{{ '{{}} {}'.format(1) if false else 'skip' }}
{{ '%s is %d' | format('a', 3) }}{{ '%s' % 'x' }}{{ '%d items' % 3 }}{{ '%s %s' % ('a', 'b') }}
{{ '%.2f' % 3.14159 }}{{ '%5d|' % 42 }}{{ '%-5s|' % 'a' }}{{ '%05d' % 42 }}{{ '%x' % 255 }}{{ '%%' % () }}
{{ '%(a)s' % {'a': 1} }}
{{ '%d' % 'x' }}
{{ 'prefix'.removeprefix('pre') }}{{ 'suffix'.removesuffix('fix') }}{{ 'x'.removeprefix('y') }}
{{ 'a,b;c'.translate({}) if false else 'skip' }}
{{ 'ab'.encode() if false else 'skip' }}
{{ d.keys() | list }}{{ d.values() | list }}{{ d.items() | list }}{{ d.get('b') }}{{ d.get('zz') }}{{ d.get('zz', 'd') }}{{ d.get('C', 'd') }}
{{ d.keys() }}
{{ d.items() }}
{{ d.values() }}
{{ 'a' in d.keys() }}{{ 1 in d.values() }}{{ d.keys() | length }}{{ d.items() | first }}
{{ d.pop('a') }}
{{ d.clear() }}
{{ d.setdefault('a', 1) }}
{{ d.copy() }}{{ l.copy() }}
{{ l.count(1) }}{{ l.index(2) }}{{ (1, 1, 2).count(1) }}{{ (1, 2).index(2) }}
{{ l.index(9) }}
{{ l.pop() }}
{{ l.extend([1]) }}
{{ l.insert(0, 1) }}
{{ l.remove(1) }}
{{ l.reverse() }}
{{ l.sort() }}
{{ l.nothing() }}
{{ s.nothing() }}
{% for k, v in d | items %}{{ k }}:{{ v }};{% endfor %}
{% for k, v in missing | items %}{{ k }}{% endfor %}|
{% for k, v in d | dictsort %}{{ k }}{% endfor %}{% for k, v in d | dictsort(true) %}{{ k }}{% endfor %}{% for k, v in d | dictsort(reverse=true) %}{{ k }}{% endfor %}
{{ d | tojson(indent=4) }}
{{ x | tojson(indent=1) }}{{ l | tojson(indent=2) }}
{{ {'a': 1.0, 'b': 1e100, 'c': 0.1} | tojson }}{{ 1.0 | tojson }}{{ 'a' | tojson }}{{ none | tojson }}{{ true | tojson }}
{{ 'é😀' | tojson(ensure_ascii=True) }}{{ 'é😀' | tojson(ensure_ascii=False) }}
{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=True) }}{{ {'b': [1, 2]} | tojson(separators=(',', ':')) }}{{ {'b': [1]} | tojson(indent=2, separators=(',', ': ')) }}
{{ (x | tojson).replace('\"', \"'\") }}
{{ x | map(attribute='n') | sum }}{{ x | sum(attribute='n') }}{{ [1, 2] | sum(start=10) }}{{ [] | sum }}
{{ x | map(attribute='zz', default='d') | list }}{{ x | map('length') | list }}{{ ['1', '2'] | map('int') | list }}
{{ ['a b', 'c d'] | map('replace', ' ', '_') | list }}{{ ['a', 'b'] | map('upper') | join }}{{ [' a '] | map('trim') | list }}
{{ x | selectattr('n', 'gt', 1) | map(attribute='t') | list }}{{ x | selectattr('role', '==', 'user') | list | length }}{{ x | selectattr('role', 'ne', 'user') | list | length }}
{{ x | selectattr('n', '>=', 2) | list | length }}{{ x | selectattr('n', 'lessthan', 2) | list | length }}{{ x | selectattr('n', 'odd') | list | length }}{{ x | selectattr('t', 'string') | list | length }}
{{ x | rejectattr('role', 'equalto', 'user') | map(attribute='t') | first }}{{ x | rejectattr('zz', 'defined') | list | length }}{{ x | rejectattr('role', 'in', ['user']) | list | length }}
{{ l | select('odd') | list }}{{ l | reject('even') | list }}{{ l | select('greaterthan', 1) | list }}{{ l | select('divisibleby', 2) | list }}{{ ['', 'a'] | select | list }}{{ l | reject('in', [1]) | list }}
{{ [1, 'a', none, 2.5, [1], {}] | select('number') | list }}{{ [1, 'a'] | select('string') | list }}{{ [{}, []] | select('mapping') | list }}
{% for r, items in x | groupby('role') %}{{ r }}={{ items | map(attribute='t') | join(',') }};{% endfor %}
{% for g in x | groupby('role') %}{{ g.grouper }}:{{ g.list | length }};{% endfor %}
{% for r, items in x | groupby('zz', default='none') %}{{ r }}={{ items | length }};{% endfor %}
{{ x | sort(attribute='n') | map(attribute='t') | list }}{{ x | sort(attribute='t') | map(attribute='t') | list }}{{ x | sort(attribute='t', case_sensitive=true) | map(attribute='t') | list }}{{ x | sort(attribute='role,n') | map(attribute='n') | list }}
{{ x | sort(true, attribute='n') | map(attribute='n') | list }}{{ l | sort(reverse=true) }}{{ ['b', 'A', 'a'] | sort }}{{ ['b', 'A', 'a'] | sort(case_sensitive=true) }}
{{ x | unique(attribute='role') | map(attribute='t') | list }}{{ ['a', 'A', 'b', 'a'] | unique | list }}{{ ['a', 'A'] | unique(true) | list }}{{ [1, 2, 1] | unique | list }}
{{ l | batch(2) | list }}{{ l | batch(2, 'x') | list }}{{ l | slice(2) | list }}{{ [1, 2, 3, 4, 5] | slice(3, 'x') | list }}{{ [] | batch(2) | list }}
{{ l | min }}{{ l | max }}{{ x | max(attribute='n') }}{{ x | min(attribute='n') }}{{ ['b', 'A'] | min }}{{ [] | min }}|{{ [] | max }}
{{ l | first }}{{ l | last }}{{ s | first }}{{ s | last }}{{ [] | last }}|{{ '' | first }}|
{{ l | reverse | list }}{{ s | reverse }}{{ l | join(', ') }}{{ x | join(',', attribute='t') }}{{ l | join }}{{ [] | join(',') }}|
{{ l | random if false else 'skip' }}
{{ m | indent }}|{{ m | indent(2, first=true) }}|{{ m | indent(2, blank=true) }}|{{ m | indent('--') }}|{{ m | indent(width=3) }}
{{ 'the quick brown fox jumps' | wordwrap(10) }}|{{ 'aaaaaaaaaaaaaaa b' | wordwrap(5) }}|{{ 'aaaaaaaaaa b' | wordwrap(5, false) }}|{{ 'a b c d e' | wordwrap(3, wrapstring='/') }}
{{ '<p>Hello <b>you</b></p>  x <!-- c -->' | striptags }}
{{ 'a b&c/d?é' | urlencode }}{{ {'a': 1, 'b': 'x y'} | urlencode }}{{ [('a', 'é')] | urlencode }}
{{ 'the quick brown fox' | truncate(10) }}|{{ 'the quick brown fox' | truncate(10, true) }}|{{ 'the quick brown fox' | truncate(10, false, '…') }}|{{ 'short' | truncate(10) }}|{{ 'the quick brown fox' | truncate(16, leeway=0) }}
{{ 'hello world foo' | wordcount }}{{ 'abc' | center(9) }}|{{ 'ab' | center(2) }}
{{ 1234567 | filesizeformat }}{{ 1234567 | filesizeformat(true) }}{{ 1 | filesizeformat }}{{ 999 | filesizeformat }}
{{ 3.7 | int }}{{ '0x1f' | int(base=16) }}{{ '1f' | int(0, 16) }}{{ '12.5' | int }}{{ none | int }}{{ 'a' | float(1.5) }}{{ true | int }}
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 1234 | round(-2) }}{{ 2.4 | round(1, 'ceil') }}{{ 2.45 | round(1, 'floor') }}{{ 5 | round }}
{{ -5 | abs }}{{ 2.5 | abs }}{{ (-2.5) | abs }}
{{ 'abc' | pprint }}{{ [1, 'a'] | pprint }}
{{ '<a href=\"x\">' | escape }}{{ '<&>' | e }}{{ '<&>' | forceescape }}{{ '<a>' | safe }}{{ '<a>' | escape | safe }}
{{ {'class': 'a', 'id': none, 'n': 1} | xmlattr }}
{{ x | attr('zz') }}|{{ 'abc' | attr('zz') is defined }}
{{ s | lower | title | replace('W', 'w') | trim('H') }}
{{ missing | default('d') }}{{ '' | default('d', true) }}{{ '' | default('d') }}|{{ false | default('d', boolean=true) }}{{ none | default('d') }}{{ none | default('d', true) }}{{ x.y.z | default('q') }}
{{ missing | upper }}|{{ missing | trim }}|{{ missing | join }}|{{ missing | list }}|{{ missing | string }}|{{ missing | int }}|{{ missing | first }}|
{{ 1 is number }}{{ 1.5 is float }}{{ 1 is integer }}{{ true is boolean }}{{ true is integer }}{{ true is number }}{{ 'a' is string }}{{ none is none }}{{ [] is sequence }}{{ {} is mapping }}{{ 'a' is iterable }}{{ 1 is iterable }}
{{ x is defined }}{{ zz is defined }}{{ zz is undefined }}{{ x is not defined }}{{ none is defined }}
{{ 3 is odd }}{{ 4 is even }}{{ 6 is divisibleby 3 }}{{ 6 is divisibleby(4) }}{{ 1 is eq 1 }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 2 is ge 2 }}{{ 2 is le 1 }}{{ 2 is gt 1 }}{{ 1 is equalto 1 }}{{ 2 is greaterthan 1 }}{{ 1 is sameas 1 }}
{{ true is true }}{{ 1 is true }}{{ false is false }}{{ 0 is false }}{{ 'a' is lower }}{{ 'A' is upper }}{{ 'a' is in 'abc' }}{{ 1 is in [1] }}{{ 'k' is in {'k': 1} }}
{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}{{ 'nope' is test }}
{{ none is string }}{{ none is mapping }}{{ none is sequence }}{{ none is iterable }}{{ none is number }}{{ zz is string }}{{ zz is none }}{{ zz is mapping }}{{ zz is iterable }}
{{ 1 + 2 * 3 - 4 / 2 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % -3 }}{{ 7.5 // 2 }}{{ 7.5 % 2 }}{{ 2 ** -1 }}{{ 2 ** 0.5 }}{{ -2 ** 2 }}
{{ 1 + 1.0 }}{{ 3 * 1.5 }}{{ 10 / 5 }}{{ 1 / 3 }}{{ 0.1 + 0.2 }}{{ 1e3 }}{{ 1_000 }}{{ 3 // 1.0 }}
{{ 'a' ~ 'b' ~ 1 }}{{ 1 ~ 2 }}{{ none ~ 'x' }}{{ [1] ~ 'x' }}{{ 'a' + 'b' }}{{ 'ab' * 2 }}{{ 2 * 'ab' }}{{ [1] * 2 }}{{ 'a' * 0 }}|
{{ 1 == 1.0 }}{{ '1' == 1 }}{{ none == none }}{{ [] == [] }}{{ true == 1 }}{{ 'a' != 'b' }}{{ 1 < 2 <= 2 }}{{ 3 > 2 > 1 }}{{ 'b' > 'a' }}
{{ not true }}{{ not none }}{{ true and false or true }}{{ 0 or 'x' }}{{ 1 and 'y' }}{{ '' and 'z' }}|{{ none or [] }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ [1] + 'a' }}
{{ 1 + none }}
{{ d + d }}
{{ 'a' - 'b' }}
{{ zz + 1 }}
{{ zz ~ 'a' }}
{{ zz == none }}{{ zz == zz }}{{ not zz }}{{ zz or 'd' }}
{{ zz() }}
{{ zz.a }}
{{ x.a.b }}
{{ s.zz }}|{{ s['zz'] }}|{{ l.zz }}|{{ l[99] }}|{{ l['a'] }}|
{{ x[0].role }}{{ x[0]['role'] }}{{ x[-1].t }}{{ x.0.role }}{{ d['a'][1] }}{{ d.a.0 }}
{{ none.x }}
{{ 1.x }}
{{ 'yes' if x else 'no' }}{{ 'yes' if zz else 'no' }}{{ 'yes' if [] }}|{{ 'a' if 1 > 2 else 'b' if 2 > 3 else 'c' }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}
{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% endfor %}
{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% if loop.nextitem is defined and loop.nextitem > i %}up{% endif %};{% endfor %}
{% for i in l %}{{ loop.cycle('a', 'b') }}{% endfor %}{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}{% for i in l %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in l if i > 1 %}{{ i }}{{ loop.last }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}none{% endfor %}
{% for i in l %}{% for j in l %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% for i in range(3) %}{% set y = i %}{% endfor %}{{ y is defined }}
{% set ns = namespace(n=0, s='') %}{% for i in l %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}
{% set ns = namespace() %}{% set ns.a = [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}{{ ns.zz is defined }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = (b, a) %}{{ a }}{{ b }}
{% set a = b = 1 %}
{% set d.x = 1 %}
{% set t %}block {{ s }}{% endset %}{{ t }}{{ t | length }}{{ t | upper }}
{% set t | upper %}block{% endset %}{{ t }}{% set t | replace('a', 'b') | trim %} aa {% endset %}{{ t }}|
{% if true %}{% set y = 1 %}{% endif %}{{ y }}{% if false %}{% set q = 1 %}{% endif %}{{ q is defined }}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}
{% macro f(a, b='x', c=none) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(1, c=3) }}{{ f(a=4, b=5) }}
{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}
{% macro f(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ f() }}
{% macro f(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) f(3) %}got {{ y }}{% endcall %}
{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}in{% endcall %}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}
{% macro f() %}  a  {% endmacro %}[{{ f() | trim }}]{{ f() | length }}{{ f() ~ 'x' }}{{ f() in 'xx  a  ' }}
{% macro f(a) %}{% set y = a %}{{ y }}{{ s }}{% endmacro %}{{ f(1) }}{{ y is defined }}
{% macro f(a, a2=a) %}{{ a }}{{ a2 }}{% endmacro %}{{ f(1) }}{{ f.name }}
{% filter upper %}abc {{ s }}{% endfilter %}{% filter indent(2) %}a{{ '\\n' }}b{% endfilter %}
{% raw %}{{ not }} {% run %}{% endraw %}{# comment #}{#- comment -#}|
{%- if true -%}  a  {%- endif -%}  b
a {%- if true %} b {% endif -%} c
a{{- ' b ' -}} c {{+ 'd' +}} e
  {%+ if true %}a{% endif +%}\\n b
  {% if true %}\\n  a\\n  {% endif %}\\n  b\\n
{% for i in l %}\\n  {{ i }}\\n{% endfor %}\\nend
{% for i in l -%}\\n  {{ i }}\\n{%- endfor %}\\nend\\n\\n
\\n\\n{% if true %}x{% endif %}\\n\\n\\n
{# c #}\\n  {# d #}  \\nx {# e #} y
{% generation %}a{% endgeneration %}{%- generation -%} b {%- endgeneration -%}c{% set z = 1 %}{% generation %}{% set z = 2 %}{{ z }}{% endgeneration %}{{ z }}
{% for i in l %}{% generation %}{{ i }}{% endgeneration %}{% endfor %}
{{ raise_exception('a' ~ 'b' + 'c') }}
{% if not x[0].zz is defined %}{{ raise_exception('Only user, assistant and tool roles are supported!') }}{% endif %}
{{ strftime_now('%d %B %Y') }}|{{ strftime_now('%A, %d %b %y') }}|{{ strftime_now('%H:%M:%S') }}|{{ strftime_now('%-d/%-m/%Y %e') }}|{{ strftime_now('%%') }}
{{ range(5) | list }}{{ range(2, 8, 3) | list }}{{ range(5, 0, -2) | list }}{{ range(0) | list }}{{ range(3) | length }}{{ range(3)[1] }}{{ range(3) | last }}
{{ dict(a=1) }}{{ dict(d, z=1) }}{{ dict([('a', 1)]) }}{{ dict() }}
{{ cycler is defined }}{{ joiner is defined }}{{ namespace is defined }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}
{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}
{{ [x, y] | length }}{{ [1, [2, [3]]] }}{{ {'a': {'b': [1]}} }}{{ {} }}{{ [] }}{{ () }}{{ (1,) }}{{ ('a', 1) }}
{{ {'a': 1}.a }}{{ {'a': 1}['a'] }}{{ {1: 'x'}[1] }}{{ {'items': 1}['items'] }}
{{ [1, 2, 3].__class__ }}
{{ ''.__class__.__mro__ }}
{{ 'a\\'b' }}{{ \"it's\" }}{{ ['a\\'b'] }}{{ [\"a'b\"] }}{{ ['a\"b'] }}{{ ['a\\'\"b'] }}{{ ['\\\\', '\\n', '\\t', '\\x00', 'é', '\\u200b'] }}
{{ ['\\r', '\\x7f', '\\xa0', '\\u2028', '😀', '\\ufeff'] }}
{{ 'x' | string | length }}{{ 1.0 | string }}{{ [1.0] | string }}{{ d | string }}{{ true ~ '' }}{{ none | string }}
{{ 100000000000000000000 }}{{ 1e16 }}{{ 1.5e-7 }}{{ -0.0 }}{{ 123456789012345678 }}{{ 1e22 }}{{ 0.1 }}{{ 1.10 }}
{{ [0.1, 1e16, -0.0, 1e-5] }}{{ {'a': 1e16} }}{{ (1e16,) }}
{{ 'é' | upper }}{{ 'ß' | upper }}{{ 'ǆ' | title }}{{ 'İ' | lower | length }}{{ 'ÀÉ'.lower() }}{{ \"they're here\".title() }}{{ \"they're here\" | title }}
{{ 'a-b c_d'.title() }}{{ 'a-b c_d' | title }}{{ 'aBC dEF' | capitalize }}{{ 'ÉA'.capitalize() }}
{{ 'x' in s }}{{ 'World' in s }}{{ 'a' in l }}{{ 2 in l }}{{ 'b' in d }}{{ 'x' not in s }}{{ not 'x' in s }}{{ '' in s }}
{{ 1 in 'abc' }}
{{ 'a' in none }}
{{ 'a' in zz }}
{{ l | length > 2 and l[0] == 3 }}{{ (l | length) * 2 }}{{ l | length + 1 }}{{ -1 | abs }}{{ 'a' ~ l | join('-') ~ 'b' }}
{{ x | map(attribute='role') | unique | join(',') }}{{ x | map(attribute='t') | map('lower') | sort | join }}{{ x | list | length }}{{ x[::-1] | map(attribute='t') | join }}
{{ x | selectattr('role', 'equalto', 'user') | map(attribute='n') | max }}{{ x | groupby('role') | length }}{{ x | map(attribute='n') | list | last }}
{% set messages = x[1:] %}{{ messages | length }}{% set messages = messages + [{'role': 'new'}] %}{{ messages[-1].role }}
{% set a = {'x': 1} %}{% set b = dict(a, y=2) %}{{ b }}{{ b | tojson }}{{ a is mapping }}{{ a.items() | list | length }}
{% for m in x if m.role == 'user' %}{{ loop.index }}:{{ m.t }}{% if not loop.last %},{% endif %}{% endfor %}
{% for m in x | reverse %}{{ m.t }}{% endfor %}{% for m in x[::-1] %}{{ loop.index0 }}{{ m.t }}{% endfor %}
{% for k in d %}{{ k }}{% if loop.first %}!{% endif %}{% endfor %}{% for c in 'ab' %}{{ c }}-{% endfor %}{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in none %}x{% endfor %}
{% for i in 5 %}x{% endfor %}
{% for a, b in [[1, 2], [3]] %}{{ a }}{% endfor %}
{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% if x is string %}s{% elif x is iterable and x is not mapping %}l{% else %}o{% endif %}
{% if x[0]['content'] is defined and x[0]['content'] is not none %}a{% else %}b{% endif %}{% if x[0].content %}a{% else %}b{% endif %}
{% if loop is defined %}y{% else %}n{% endif %}
{% include 'x' ignore missing %}a
{% extends 'x' %}
{% import 'x' as y %}
{% autoescape true %}{{ '<' }}{% endautoescape %}
{% unknown %}
{{ unclosed
{% if true %}
{% endif %}
{{ 'a' | nope }}
{{ 1 is nope }}
{{ f( }}
{{ 'a' 'b' }}{{ 'a' ~
{% for %}{% endfor %}
{{ x[ }}
{{ {'a' 1} }}
{{ loop.index }}
{% break %}
{{ s | replace }}
{{ s | round }}
{{ l | upper }}{{ 1 | upper }}{{ none | upper }}{{ 12 | length }}
{{ 12 | trim }}{{ none | trim }}{{ [1] | trim }}{{ 12 | replace('1', 'x') }}{{ 1.50 | trim }}
{{ 'abc' | batch(2) | list }}{{ d | list }}{{ d | first }}{{ d | length }}{{ d | join(',') }}{{ d | sort }}{{ d | map('upper') | list }}
{{ s is sequence }}{{ d is iterable }}{{ d is sequence }}{{ l is mapping }}{{ s is mapping }}{{ (1,) is sequence }}{{ range(2) is iterable }}{{ (x | map(attribute='n')) is iterable }}
{{ 'line\\n' * 3 }}{{ '=' * 20 }}{{ '-' ~ '=' * 3 }}
{{ true if s.startswith('H') and s.endswith('d') else false }}{{ (s ~ '!').split('!')[0] }}{{ s.split(', ')[-1].strip().lower() }}
{{ x[0].get('role') }}{{ x[0].get('zz', {}).get('y') }}{{ (x[0].zz or {}).y }}|{{ x[0].zz | default({}) | length }}
{{ x | last }}{{ (x | last).role }}{{ x[-1]['role'] == 'user' }}{{ x | map(attribute='role') | list == ['user', 'tool', 'user'] }}
{{ '\\u003c' }}{{ '\\x3c' }}{{ '\\U0001F600' }}{{ '\\101' }}{{ '\\q' }}{{ 'a\\
b' }}
{{ 0x1f }}{{ 0b11 }}{{ 0o17 }}
{{ 5 | string + 'a' }}{{ '5' | int + 1 }}{{ 5 is string }}{{ 'a' is number }}{{ '5'.isdigit() and '5' | int > 4 }}
{{ d == {'b': 1, 'a': [1, 2], 'C': none} }}{{ (1, 2) == (1, 2) }}{{ (1, 2) == [1, 2] }}{{ [1, 2] < [1, 3] }}{{ 'Z' < 'a' }}
""".strip("\n").split("\n")
i = MORE.index("{{ '\\u003c' }}{{ '\\x3c' }}{{ '\\U0001F600' }}{{ '\\101' }}{{ '\\q' }}{{ 'a\\")
MORE[i : i + 2] = ["\n".join(MORE[i : i + 2])]
SNIPPETS += [(line.replace("\\n", "\n") if line.lstrip().startswith(("{% if true %}\\n", "{% for i in l %}\\n", "{% for i in l -%}\\n", "\\n", "{# c", "{%+")) else line, V) for line in MORE]


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
