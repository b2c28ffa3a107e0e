"""Unit: what a template may cost; what its sandbox shuts out is in the tests of pipelines."""

from __future__ import annotations

import jinja2
import pytest

import dspex
from dspex.errors import InvalidInput, SettingsError
from dspex.template_limits import CHARS_MOST

DOUBLED = (
    "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x|length }}"
)
ATTACKS = (
    *("{{ 'a' * 2000000000 }}", "{{ 2000000000 * 'a' }}", "{{ [0] * 2000000000 }}", "{{ 9 ** 9999999 }}"),
    *("{{ '%2000000000d' % 1 }}", "{{ '%*d' % (2000000000, 1) }}", "{{ '{:>2000000000}'.format(1) }}"),
    *("{{ '{:>{}}'.format(1, 2000000000) }}", "{{ 'a'.ljust(2000000000) }}", "{{ 'a'.zfill(99999999999) }}"),
    *("{{ '\\t'.expandtabs(9999999999) }}", "{{ 'a'|center(2000000000) }}", "{{ 'a'|indent(2000000000) }}"),
    *("{{ '%999999999s'|format('x') }}", "{{ 'aaa'|batch(99999999)|list }}", "{{ [1, 2]|join('a' * 8000000) }}"),
    *("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}"),
    *("{{ ''.join(['a' * 999999] * 99) }}", "{{ ('a' * 100000)|wordwrap(1, wrapstring='b' * 100000) }}"),
    *("{{ range(999999999)|list }}", "{{ range(0, 10 ** 9)|sum }}", "{{ lipsum(100000000) }}"),
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(90) %}" + "x" * 20 + "{% endfor %}{% endfor %}",
    *(DOUBLED % ("'a'", "ns.x + ns.x"), DOUBLED % ("'a'", "ns.x ~ ns.x"), DOUBLED % ("[1]", "ns.x + ns.x")),
    "{% set ns = namespace(x=3) %}{% for i in range(40) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
)
USES = (
    *("Dear {{ n }} ~ {{ a ~ '-' ~ n }}", "{{ 123456789|round }} {{ '{:,}'.format(2000000) }} {{ '%d' % 2000000 }}"),
    *("{{ xs|join(', ') }} {{ ', '.join(xs) }} {{ xs|map('upper')|join }}", "{{ 'ab'|center(10) }}|{{ 'x'.ljust(3) }}"),
    *("{{ 'a\nb'|indent(2) }} {{ 'a-b'|replace('-', '+') }}", "{{ '%s and %s'|format('a', 'b') }} {{ 2 ** 10 * 3 }}"),
    *("{{ 'abc'.split('b') }} {{ 1 + 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }}", "{{ n|default('d') }} {{ xs|length }}"),
    *(
        "{% for x in xs %}{{ loop.index }}{{ x }}{% endfor %}",
        "{{ 'some words here'|truncate(8) }} {{ 'a b'|wordwrap(1) }}",
    ),
    *("{{ big }}", "{{ (3, 4)|sum }} {{ xs|tojson }} {{ '50%' }} {{ '{}: {:.2f}'.format(n, 1.5) }}", "{{ 3 * 'ab' }}"),
)


@pytest.mark.parametrize("text", ATTACKS)
def test_a_template_makes_so_much_and_no_more(text: str) -> None:
    """unit: refused before it is made, so each takes no time and no memory."""
    with pytest.raises(InvalidInput):
        dspex.template(text).render()


@pytest.mark.parametrize("text", USES)
def test_what_prompts_need_is_as_in_jinja2(text: str) -> None:
    """unit: jinja2 itself is the oracle."""
    values = {"n": "Ada", "a": 1, "xs": ["p", "q"], "big": "x" * 1_000_000}
    assert dspex.template(text).render(**values) == jinja2.Environment().from_string(text).render(values)


def test_a_budget_is_one_renderings() -> None:
    """unit: many renderings may make what one may not."""
    made = dspex.template("{{ 'a' * n }}")
    for _ in range(3):
        assert len(made.render(n=CHARS_MOST // 3)) == CHARS_MOST // 3


def test_a_long_template_is_refused() -> None:
    """unit: compiling takes seconds for each MiB."""
    with pytest.raises(SettingsError, match="limit"):
        dspex.template("{{ a }}" * 1_000_000)
