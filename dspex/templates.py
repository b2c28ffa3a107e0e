"""Render templates: `template("Dear {{ name }}").render(name="...")`, jinja2 in its sandbox.

jinja2 is imported when the first template is made. Templates are immutable and shared between threads.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput, SettingsError

if TYPE_CHECKING:
    import jinja2


TEXT_MOST = 1024 * 1024  # characters of a template; compiling that takes seconds


def template(text: str) -> PromptTemplate:
    """Return the compiled template.

    Raises:
        SettingsError: the text is no template; it names the line.
    """
    return PromptTemplate(text)


class PromptTemplate:
    """A text with `{{ names }}`; `render` fills them in."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        import jinja2

        self.text = text
        if len(text) > TEXT_MOST:
            raise SettingsError(f"A template of {len(text):,} characters is over the limit of {TEXT_MOST:,}.")
        try:
            self._compiled: jinja2.Template = _environment().from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise SettingsError(f"Line {error.lineno} of the template cannot be read: {_sentence(error)}") from error

    def render(self, **values: Any) -> str:
        """Return the text with every name filled in.

        Raises:
            InvalidInput: a name has no value, or an operation fails or is refused by the sandbox.
        """
        import jinja2
        from jinja2.exceptions import SecurityError

        from .template_limits import rendering

        pieces: list[str] = []
        try:
            with rendering() as budget:
                for piece in self._compiled.generate(values):
                    budget.take_chars(len(piece))
                    pieces.append(piece)
            return "".join(pieces)
        except jinja2.UndefinedError as error:
            raise InvalidInput(f"The template needs a value that was not given: {_sentence(error)}") from error
        except SecurityError as error:
            raise InvalidInput(f"The template does what its sandbox forbids: {_sentence(error)}") from error
        except RecursionError:
            raise InvalidInput("The template failed with RecursionError: it calls itself too often.") from None
        except Exception as error:  # a filter or operator met a value of the wrong kind
            raise InvalidInput(f"The template failed with {type(error).__name__}.") from error

    def __repr__(self) -> str:
        return f"Template({self.text[:60]!r})"


def _sentence(error: Exception) -> str:
    return f"{str(error).splitlines()[0].rstrip('.')}."


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    from .template_limits import BoundedEnvironment

    return BoundedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
