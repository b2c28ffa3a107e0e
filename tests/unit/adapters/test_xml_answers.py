"""Unit: answers in XML, whole and while they arrive; what is absurd is refused in a bounded time."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from dspex.adapters import compile_signature
from dspex.errors import AdapterParseError
from dspex_worker.types.xml_fields import XMLFields
from tests.support.adapters.hostile_replies import signature_of

VALUES = (
    "Paris", "a & b < c > d", "two\nlines", "  padded  ", "", "&amp; as such", "é 名前 😀", "&#65; no entity", "a;b&c",
    "]]>", "'\"", "x" * 300, "tab\there", "line\r\nends\rhere",
)  # fmt: skip


def _streamed(text: str, cuts: int, texts: tuple[str, ...] = ("a", "b")) -> dict[str, str]:
    fields, found, source = XMLFields(("a", "b"), texts), dict[str, str](), random.Random(cuts)
    at = 0
    while at < len(text):
        end = at + (source.randint(1, 9) if cuts else len(text))
        for name, piece in fields.feed(text[at:end]):
            found[name] = found.get(name, "") + piece
        at = end
    assert not list(fields.finish())
    return found


def _written(value: str, way: int) -> str:
    escaped = value.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"\n{escaped}\n",
        escaped.replace(">", "&gt;").replace("'", "&apos;").replace('"', "&quot;"),
        f"<![CDATA[{value}]]>" if "]]>" not in value else escaped,
        "".join(f"&#{ord(each)};" if at % 2 else f"&#x{ord(each):x};" for at, each in enumerate(value)),
        f"<!-- <b> -->{escaped}<?pi <?>",
    )[way]


@pytest.mark.parametrize("way", range(5))
@pytest.mark.parametrize("cuts", range(4))
def test_the_pieces_of_a_text_joined_are_its_value(way: int, cuts: int) -> None:
    """unit: however it is written, and however it is cut."""
    sig = compile_signature("q -> a, b", "xml")
    for value in VALUES:
        if value == "]]>" and way in (0, 2, 4):
            continue  # which XML does not have as such
        if way == 3 and ("\r" in value or value != value.strip()):
            continue  # a reference to white space is none of the markup's
        text = f"Sure.\n<a>{_written(value, way)}</a>\n\n<b x='1'>{_written('after', way)}</b> done"
        parsed = sig.parse(text)
        found = _streamed(text, cuts)
        assert (found.get("a", ""), found["b"]) == (parsed["a"], parsed["b"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<a><item>1</item><item>2</item></a>", {"a": "<item>1</item><item>2</item>"}),
        ("<a>x <a>y</a> z</a><b>w</b>", {"a": "x <a>y</a> z", "b": "w"}),
        ("<c><a>inside another</a></c><b>w</b>", {"b": "w"}),
        ("<a>1</a><a>2</a>", {"a": "1"}),
        ("<a/><b>w</b><a>late</a>", {"b": "w"}),
        ("<a>cut", {"a": "cut"}),
        ("<a>cut &am", {"a": "cut"}),
        ("</b><a>x</a>", {"a": "x"}),
        ("<ab>no</ab><a >yes</a >", {"a": "yes"}),
        ("no tags at all", {}),
        ("<a>&unknown; &#xFFFFFFF; &</a>", {"a": "&unknown; &#xFFFFFFF; &"}),
    ],
)
@pytest.mark.parametrize("cuts", range(3))
def test_the_outermost_elements_are_shown(text: str, shown: dict[str, str], cuts: int) -> None:
    """unit: the first of each name; elements inside as they were written."""
    assert _streamed(text, cuts) == shown


ATOMS = (
    "<a>", "<a><a>", "</a>", "<a/>", "<", "&", "&amp;", "&#65;", "<!--", "-->", "<![CDATA[", "]]>", "<?",
    "<!DOCTYPE a [", "<a b='1'>", "<a b=\"", "<item>1</item>", "\r", "\n", "x",
    "<entry key='k'>1</entry>", "<a>x</a>", "&lt;a&gt;",
)  # fmt: skip


def _cpu_s(act: Any) -> float:
    begun = time.thread_time()
    try:
        act()
    except AdapterParseError:
        pass
    return time.thread_time() - begun


@pytest.mark.parametrize("kind", [str, list[str], dict[str, Any], str | None])
@pytest.mark.parametrize("atom", ATOMS)
def test_reading_grows_no_faster_than_the_reply(atom: str, kind: Any) -> None:
    """unit: eight times the reply takes some eight times the time; the square would be 64 times."""
    sig = compile_signature(signature_of(kind), "xml")
    for wrap in ("{}", "<a>{}</a>"):
        texts = [wrap.format(atom * (size // len(atom))) for size in (12_500, 100_000)]
        small, large = (_cpu_s(lambda text=text: sig.parse(text)) for text in texts)
        assert large <= 8 * 3 * small + 0.5, (wrap, small, large)


@pytest.mark.parametrize("cut", [1, 10**6])
@pytest.mark.parametrize("atom", ATOMS)
def test_streaming_grows_no_faster_than_the_reply(atom: str, cut: int) -> None:
    """unit: character by character, and in one piece."""

    def streamed(text: str) -> None:
        fields = XMLFields(("a", "b"), ("a",))
        for at in range(0, len(text), cut):
            for _ in fields.feed(text[at : at + cut]):
                pass

    for prefix in ("", "<a>", "<a b"):
        texts = [prefix + atom * (size // len(atom)) for size in (12_500, 100_000)]
        small, large = (_cpu_s(lambda text=text: streamed(text)) for text in texts)
        assert large <= 8 * 3 * small + 0.5, (prefix, small, large)


@pytest.mark.parametrize("text", ["<a>" * 33_000, "<a>" * 33_000 + "</a>" * 33_000, "<a><item>" * 20_000])
@pytest.mark.parametrize("kind", [str, list[str], dict[str, Any]])
def test_what_is_nested_absurdly_is_refused(text: str, kind: Any) -> None:
    """unit: as an answer that cannot be read, whatever Python says of it."""
    with pytest.raises(AdapterParseError, match="cannot be read by the xml adapter"):
        compile_signature(signature_of(kind), "xml").parse(text)


def test_nothing_in_an_answer_expands() -> None:
    """unit: an answer is the inside of an element, where no entity can be declared."""
    bomb = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'
    outside = f"</dspy_root>{bomb}<dspy_root>"
    for text in (bomb, outside, "<a>&x;</a>", '<a>&file;</a><!ENTITY file SYSTEM "file:///etc/passwd">'):
        with pytest.raises(AdapterParseError):
            compile_signature("q -> a", "xml").parse(text)


def test_errors_say_where_and_not_what() -> None:
    """unit: the answer's words are in `lm_response` alone."""
    with pytest.raises(AdapterParseError) as caught:
        compile_signature("q -> a: int", "xml").parse("<a>secret</a>")
    assert "secret" not in str(caught.value) and caught.value.lm_response == "<a>secret</a>"
    with pytest.raises(AdapterParseError, match="line 1") as caught:
        compile_signature("q -> a: int", "xml").parse("<a>secret")
    assert "secret" not in str(caught.value)
