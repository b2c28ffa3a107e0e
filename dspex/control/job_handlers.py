"""Answer a control client's requests about optimizations. What may block runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from ..pools.supervisor import Supervisor
from ..services.running_jobs import RunningJobs
from ..services.services import Services
from . import request_fields
from .protocol import Verb
from .request_fields import Fields


async def jobs(supervisor: Supervisor, fields: Fields) -> list[dict[str, Any]]:
    """Return a row for each job."""
    return jobs_of(supervisor).rows()


async def job(supervisor: Supervisor, fields: Fields) -> dict[str, Any]:
    """Return the row of the job `id`."""
    return jobs_of(supervisor).job(request_fields.text(fields, "id")).row


async def cancel(supervisor: Supervisor, fields: Fields) -> bool:
    """End the job `id`; False if it has ended already."""
    found = jobs_of(supervisor).job(request_fields.text(fields, "id"))
    return await asyncio.to_thread(found.cancel)


async def program(supervisor: Supervisor, fields: Fields) -> dict[str, Any] | None:
    """Return the best program of the job `id` so far, as its file has it; None before there is one."""
    found = jobs_of(supervisor).job(request_fields.text(fields, "id"))
    return await asyncio.to_thread(found.document)


async def start(supervisor: Supervisor, fields: Fields) -> str:
    """Start a job, and return its id; it goes on when its client has gone."""
    supervisor.check_usable()
    started = await asyncio.to_thread(jobs_of(supervisor).start, fields)
    return started.id


async def events(supervisor: Supervisor, fields: Fields) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of the job `id`; with `follow` until it ends."""
    found = jobs_of(supervisor).job(request_fields.text(fields, "id"))
    if not request_fields.flag(fields, "follow"):
        for event in found.recent():
            yield event
        return
    async for event in found.events():
        yield event


JOB_HANDLERS: Final[dict[str, Callable[[Supervisor, Fields], Awaitable[Any]]]] = {
    Verb.JOBS: jobs,
    Verb.JOB: job,
    Verb.JOB_PROGRAM: program,
    Verb.CANCEL_JOB: cancel,
    Verb.START_JOB: start,
}


def jobs_of(supervisor: Supervisor) -> RunningJobs:
    """Return the supervisor's jobs; none are made for the look."""
    services = supervisor.services
    return services.jobs if isinstance(services, Services) else RunningJobs()
