#!/usr/bin/env python3
"""Renders chat templates by PyPI jinja2 and writes what coterie must reproduce byte for byte.

    pip install jinja2==3.1.6
    python make_template_golden.py              # rewrites golden.json and snippets.json
    python make_template_golden.py --corpus DIR # prints cases for all *.jinja below DIR instead

The environment is that of transformers' apply_chat_template: the immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, the generation tag, tojson without ASCII escapes or HTML safety.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = pathlib.Path(__file__).resolve().parents[2] / "data" / "templates"
NOW = datetime.datetime(2026, 3, 4, 5, 6, 7)


class Generation(Extension):
    """{% generation %} marks text; it changes none."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def make_environment():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.filters["from_json"] = json.loads
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    return environment


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'Weather of a "city", now.\nIn <b>degrees</b>.',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Köln or 東京"},
                    "days": {"type": "integer", "minimum": 1},
                    "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
                },
                "required": ["city"],
            },
        },
    }
]


# Whitespace control across lines.
LAYOUTS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "a\n  {{ 1 }}\n  b\n\n",
    "  {% if true %}  x  {% endif %}  \n y",
    "a\n\n  {%- if true %}\n\n  b\n  {%- endif -%}\n\n  c",
    "a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc",
    "a\n  {# c #}\n  b {# d #}\n{#- e -#}\n f",
    "x {# c #}\n  {# d #}  \n  {#+ e #}\ny",
    "a\r\n{% if true %}\r\nb\r{% endif %}\rc",
    "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n",
    "{% for i in [1, 2] -%}\n  {{ i -}}\n{%- endfor %}\n",
    "\n\n{%- set x = 1 %}\n{{ x }}\n\n\n",
    "a\n \t {% raw %}\n  {{ b }}\n  {% endraw %}\nc\n  {%- raw -%}\n d \n{%- endraw -%}\n e",
    "{{ 1 -}}\n\n x \u00a0 {{- 2 }}\n{{- 3 -}} \u3000 y",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]",
    "{{ {\n'a': 1,\n}\n.a }}{{\n2\n}}",
    "{%if true%}a{%endif%}{{1}}{{-1}}{{- 1-}}",
    "\n",
    "",
    "{{ '\n' }}\n\n",
]


def message(role, content, **fields):
    return {"role": role, "content": content, **fields}


CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2, "scale": 1.5}},
}

CONTEXTS = {
    "user": dict(messages=[message("user", "What is 2 + 2?")]),
    "system": dict(
        messages=[message("system", "  Be brief.\n"), message("user", "Hello — <|im_end|> {{ x }}!")]
    ),
    "turns": dict(
        messages=[
            message("user", "  Hi \n"),
            message("assistant", "<think>\nhm\n</think>\n\nHello 👋 \n"),
            message("user", 'Say "bye".'),
            message("assistant", " Bye. "),
            message("user", "Again, in Grüße"),
        ]
    ),
    "system_turns": dict(
        messages=[
            message("system", "You are a pirate."),
            message("user", "Who?"),
            message("assistant", "Arr."),
            message("user", "Why?\n\nTell me."),
        ]
    ),
    "empty_system": dict(messages=[message("system", ""), message("user", "x")]),
    "answered": dict(
        messages=[message("user", "1?"), message("assistant", "One.")], add_generation_prompt=False
    ),
    "tools": dict(
        messages=[
            message("system", "Use tools."),
            message("user", "Weather?"),
            message("assistant", "", tool_calls=[CALL]),
            message("tool", '{"c": 21.5}', name="get_weather", tool_call_id="call00001"),
            message("assistant", "21.5 °C."),
            message("user", "Thanks"),
        ],
        tools=TOOLS,
    ),
    "no_thinking": dict(messages=[message("user", "Go")], variables={"enable_thinking": False}),
}


def render(environment, source, context):
    """What jinja2 makes of it: {"text": ...} or {"error": ...}."""
    try:
        text = environment.from_string(source).render(
            messages=context["messages"],
            tools=context.get("tools"),
            documents=None,
            add_generation_prompt=context.get("add_generation_prompt", True),
            bos_token="<s>",
            eos_token="</s>",
            **context.get("variables", {}),
        )
        return {"text": text}
    except Exception as error:  # Whatever a template may raise.
        return {"error": str(error)}


def as_case(context):
    """The context as the C++ test takes it."""
    messages = []
    for entry in context["messages"]:
        fields = {k: v for k, v in entry.items() if k not in ("role", "content")}
        item = {"role": entry["role"], "content": entry["content"]}
        if fields:
            item["fields_json"] = json.dumps(fields, ensure_ascii=False)
        messages.append(item)
    return {
        "messages": messages,
        "add_generation_prompt": context.get("add_generation_prompt", True),
        "tools_json": json.dumps(context["tools"], ensure_ascii=False) if "tools" in context else "",
        "variables_json": json.dumps(context["variables"]) if "variables" in context else "",
    }


def read_snippets():
    """The programs of snippets.txt: one a line, and those of several lines below."""
    lines = (DATA / "snippets.txt").read_text(encoding="utf-8")
    # A backslash at the end of a line is part of a program.
    return [line for line in re.split(r"(?<!\\)\n", lines) if line] + LAYOUTS


def snippet(environment, source):
    return {"source": source, **render(environment, source, CONTEXTS["system_turns"])}


def write(name, value):
    with open(DATA / name, "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=1)
        out.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=pathlib.Path)
    arguments = parser.parse_args()
    environment = make_environment()
    folder = arguments.corpus or DATA
    sources = {
        str(path.relative_to(folder)): path.read_bytes().decode()
        for path in sorted(folder.rglob("*.jinja"))
    }
    expected = {
        name: {key: render(environment, source, context) for key, context in CONTEXTS.items()}
        for name, source in sources.items()
    }
    golden = {
        "jinja2": jinja2.__version__,
        "contexts": {key: as_case(context) for key, context in CONTEXTS.items()},
        "expected": expected,
    }
    if arguments.corpus:
        golden["sources"] = sources
        json.dump(golden, sys.stdout, ensure_ascii=False)
        return
    write("golden.json", golden)
    write("snippets.json", [snippet(environment, source) for source in read_snippets()])


if __name__ == "__main__":
    main()
