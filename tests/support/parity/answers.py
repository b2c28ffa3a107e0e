"""Random answers of a model: mostly well formed, then damaged in the ways in which models damage them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.parity.random_values import Kind, Kinds, jsonable


class Answers:
    """Answers to the outputs of one case."""

    def __init__(self, source: random.Random, kinds: Kinds) -> None:
        self.random = source
        self.kinds = kinds

    def answer(self, outputs: Mapping[str, Kind], adapter: str) -> str:
        """A text in the adapter's format, or what is left of one."""
        values = {name: self._value(kind) for name, kind in outputs.items()}
        text = self._as_chat(values) if adapter == "chat" else self._as_json(values)
        return self._damaged(text, list(outputs)) if self.random.random() < 0.4 else text

    def _value(self, kind: Kind) -> Any:
        if kind.shape == "dspy":
            return self.random.choice(("```py\nx\n```", "x = 1", {"code": "y"}, "```c\nint x;\n```\nand more"))
        return self.kinds.value(kind)

    def _as_chat(self, values: Mapping[str, Any]) -> str:
        parts = []
        for name, value in values.items():
            if self.random.random() < 0.05:
                continue
            between = self.random.choice(("\n", "\n", "\n", " ", "\n\n", "\r\n", "\u2028", "\x0c"))
            parts.append(f"[[ ## {name} ## ]]{between}{self._shown(value)}")
        if self.random.random() < 0.1:
            parts.insert(0, "Sure! Here it is.")
        if self.random.random() < 0.05 and parts:
            parts.append(self.random.choice(parts))
        if self.random.random() < 0.05:
            self.random.shuffle(parts)
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])

    def _as_json(self, values: Mapping[str, Any]) -> str:
        kept = {name: jsonable(value) for name, value in values.items() if self.random.random() < 0.96}
        if self.random.random() < 0.05:
            kept["extra"] = 1
        indent, plain = self.random.choice((None, 2)), self.random.random() < 0.5
        text = json.dumps(kept, indent=indent, ensure_ascii=plain) if self.random.random() < 0.93 else repr(kept)
        wrap = self.random.choice((
            "{}", "{}", "{}", "{}", "```json\n{}\n```", "```\n{}\n```", "Here: {} Done.", "[{}]", "{}\n{}", "'{}'",
            "<think>hm {x}</think>{}", "\ufeff{}", '"{}"', "{{}}",
        ))  # fmt: skip
        return wrap.replace("{}", text)

    def _shown(self, value: Any) -> str:
        how = self.random.random()
        plain = jsonable(value)
        if isinstance(plain, str):
            odd = (f'"{plain}"', f"'{plain}'", f"Literal[{plain!r}]", f" {plain} ", json.dumps(plain), f"str[{plain}]")
            return plain if how < 0.8 else self.random.choice(odd)
        if how < 0.6:
            return json.dumps(plain)
        if how < 0.75:
            return repr(plain)
        return self.random.choice((
            f"```json\n{json.dumps(plain)}\n```", str(plain), f"The value is {plain}.", json.dumps(plain, indent=1),
            str(value), f"{json.dumps(plain)} // as asked", f"({plain},)",
        ))  # fmt: skip

    def _damaged(self, text: str, names: Sequence[str]) -> str:
        at = self.random.randint(0, len(text))
        name = self.random.choice(names) if names else "x"
        return self.random.choice((
            lambda: text[:at], lambda: text[at:], lambda: text[:at] + self.kinds.word() + text[at:], lambda: "",
            lambda: text.replace('"', "'"), lambda: text.replace("[[ ##", "  [[ ##"),
            lambda: text.replace("## ]]", "##]]", 1), lambda: text.replace(",", ",,", 1),
            lambda: text.replace("}", "", 1), lambda: text.replace("\n", "\r\n"),
            lambda: text + text, lambda: text.upper(), lambda: text[:at] + text[at + 1 :],
            lambda: text.replace("true", "True"), lambda: text.replace("]]", "]] trailing", 1),
            lambda: f"\x1c{text}\x85", lambda: self.kinds.word(), lambda: text.replace("}", ",}"),
            lambda: text.replace("]", ",]"), lambda: text.replace(name, name.title()),
            lambda: text.replace(f"[[ ## {name} ## ]]", f"**{name}**"), lambda: text.replace(f'"{name}":', f"{name}:"),
            lambda: text.replace(":", ": //", 1), lambda: "[" * 60 + text, lambda: text.replace("\\", ""),
            lambda: f"{text}\n[[ ## {name} ## ]]\nsecond", lambda: f"[[ ## {name} ## ]]\nfirst\n{text}",
            lambda: text.replace(" ## ]]", " ## ]]: "), lambda: text.replace(" ## ", " # "),
            lambda: text.replace("null", "None"), lambda: text.replace('": "', '": "He said "hi" and '),
        ))()  # fmt: skip
