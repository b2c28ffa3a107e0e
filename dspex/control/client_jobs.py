"""A client's optimizations in its service: started there, listed, watched. Everything goes through the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from ..pools.streams import Stream
from .client_job import ClientJob
from .client_requests import ClientRequests
from .job_request import START_PATIENCE, JobRequestOptions, job_request
from .protocol import Verb
from .request_fields import Fields


class ClientJobs(ClientRequests):
    """The jobs of a supervisor in another process."""

    def job(self, id: str) -> ClientJob:
        """Return a handle of an optimization over there, by the id that `jobs` says; it may be asked from any thread.

        Raises:
            UnknownName: there is none of this id.
        """
        return ClientJob(self, str(self.job_row(id)["id"]))

    def job_events(self, id: str, *, follow: bool = True) -> Stream:
        """Return a job's events from the first, each {"number", "kind", "at", "facts"}; with `follow` until it ends."""
        return self._follow(Verb.JOB_EVENTS, {"id": id, "follow": follow})

    def optimize(
        self,
        program: str,
        trainset: Sequence[Mapping[str, Any]],
        *,
        metric: str | None = None,
        optimizer: str = "miprov2",
        valset: Sequence[Mapping[str, Any]] | None = None,
        **options: Unpack[JobRequestOptions],
    ) -> ClientJob:
        """Start an optimization over there and return its handle; it goes on when this client has gone.

        `program` is a signature's text, or "package.module:Class" of the `mipro` pool's `imports`; `metric` a built-in
        one's name, or a function's of those imports. It waits until the job has been checked as far as the service
        itself can; what its worker refuses ends the job as "failed" before anything is paid. With a metric of this
        process, `dspex.optimize(..., supervisor=client)` is the same for a job that is this process's own.

        Raises:
            UsageError: the supervisor over there starts no jobs for clients.
            UnknownName, SettingsError, InvalidInput, LMConfigurationError: it cannot be; nothing was paid.
            PoolSaturated: too many jobs of clients are under way.
        """
        fields = job_request(program, trainset, metric=metric, optimizer=optimizer, valset=valset, **options)
        return ClientJob(self, str(self.ask(Verb.START_JOB, fields, what="the optimization", wait=START_PATIENCE)))

    def _follow(self, verb: str, fields: Fields) -> Stream:
        """Return a stream that has no time limit."""
        stream = self.started(verb, fields, pool="control", command=verb, limit=float("inf"))
        assert isinstance(stream, Stream)
        return stream
