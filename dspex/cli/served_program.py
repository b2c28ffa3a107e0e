"""Run the program that a command line names in the workers of a running service: there `imports` decides.

Programs are described in this process and run over there; keys and settings are the service's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..control.call_lms import DEFAULT
from ..control.client import Client, connect
from ..errors import InvalidInput, SettingsError
from ..programs.options.routing import GENERAL_POOL
from ..programs.worker import worker_answers
from ..programs.worker.sent_adapter import told_adapter
from ..types.prediction import Prediction
from .program_choice import ProgramChoice
from .shell_program import InputRules, described_rules, is_file, named_program, signature_rules

if TYPE_CHECKING:
    from ..programs.calling.program import Program


@dataclass(frozen=True)
class ServedProgram:
    """A program of this process's, run by a service; `lm` is one of the service's, by its name."""

    client: Client
    spec: Program[Any]  # no `program`: whoever evaluates it must ask the service
    lm: str
    where: str

    @cached_property
    def rules(self) -> InputRules:
        """What it takes."""
        if not getattr(self.spec, "is_open", False):
            return signature_rules(self.spec)
        answer = self.client.call(GENERAL_POOL, "describe_program", {"spec": self.spec.to_wire()})
        return described_rules(worker_answers.describes(answer, self.where))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.rules.names

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """Run it and return what it returns."""
        timeout = self.spec.timeout
        return self._read(self.client.call(GENERAL_POOL, "run", self._arguments(inputs), timeout=timeout, lm=self.lm))

    async def acall(self, **inputs: Any) -> Any:
        """`call`, awaited."""
        arguments, timeout = self._arguments(inputs), self.spec.timeout
        return self._read(await self.client.acall(GENERAL_POOL, "run", arguments, timeout=timeout, lm=self.lm))

    def stream(self, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """Yield chunks, then what it returns."""
        arguments, timeout = self._arguments(inputs), self.spec.timeout
        with self.client.stream(GENERAL_POOL, "run_stream", arguments, timeout=timeout, lm=self.lm) as chunks:
            for chunk in chunks:
                yield worker_answers.chunk(chunk, self.where)
            yield self._read(chunks.value)

    def _arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        crossed = self.spec.crossed(inputs)
        if crossed.carried:
            raise InvalidInput(
                f"The input {next(iter(crossed.carried))!r} can be given to workers of this process only."
            )
        adapter = told_adapter(self.spec.adapter)
        spec, config = self.spec.to_wire(), dict(self.spec.config)
        return {"spec": spec, "inputs": crossed.plain, "adapter": adapter, "config": config}

    def _read(self, reply: Any) -> Any:
        found = worker_answers.prediction(reply, self.where)
        if "value" in found:
            return worker_answers.returned(found, self.where)
        return Prediction(
            self.spec.typed(found["outputs"]), usage=found.get("usage") or {}, route=f"python:{self.where}"
        )


@contextlib.contextmanager
def served_program(choice: ProgramChoice) -> Generator[ServedProgram]:
    """Yield the program that the options name, over a connection to the service that they name.

    Raises:
        SettingsError, InvalidInput: something was given that only workers of this process can heed.
        NotRunning, TooManyClients: nobody answers there, or has a place.
    """
    if choice.config is not None:
        raise SettingsError("--config is for workers of this command's own: a service has its settings.", key="config")
    if is_file(choice.program or ""):
        raise InvalidInput(
            f"{choice.program!r} is a file; a service runs what its pool's imports name: write package.module:Class."
        )
    program = named_program(choice)
    with connect(choice.target.socket, name=choice.target.name) as client:
        if GENERAL_POOL not in client.pools:
            raise SettingsError(f"The service has no pool {GENERAL_POOL!r}, in which programs run.", key="pools")
        yield ServedProgram(client, program, choice.lm or DEFAULT, str(client.greeting.get("name") or GENERAL_POOL))
