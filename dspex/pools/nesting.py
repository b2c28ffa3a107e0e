"""Find the outer calls of a nested call: one that a callback's handler makes.

The link is a context variable, so it follows a handler's threads and tasks as far as their contextvars do.
"""

from __future__ import annotations

from contextvars import Context, ContextVar

from .call import Call

_outer: ContextVar[tuple[object, Call] | None] = ContextVar("dspex_outer_call", default=None)


def outer_calls(pool: object) -> list[Call]:
    """Return the pool's calls that this code runs for, the nearest first: a tool of theirs led here.

    It may have done so by way of another pool. A task or thread that a tool left behind, with the tool's contextvars,
    is nobody's any more once the tool's call has ended.
    """
    calls, link = [], _outer.get()
    while link is not None:
        if link[0] is pool and not link[1].is_ended:
            calls.append(link[1])
        link = link[1].context.get(_outer)
    return calls


def context_within(pool: object, outer: Call) -> Context:
    """Return the contextvars of the call's caller, in which whatever is called is nested in the call."""
    context = outer.context.copy()
    context.run(_outer.set, (pool, outer))
    if outer.span is not None:
        outer.span.enter_worker(context, outer.sent_at, outer.worker_name)
    return context


def is_nested(call: Call) -> bool:
    """Return whether a tool made the call, in whatever pool: it may wait for what this call leads to."""
    return call.context.get(_outer) is not None
