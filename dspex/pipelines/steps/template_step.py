"""Render a template as a step: read the names in it, write the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import SettingsError
from ...templates import PromptTemplate
from ..core.dataflow import Flow, Reads, Writes
from ..core.parameters import missing
from ..core.snapshots import Snapshot
from ..core.step import Step, StepJob, StepOutput


@dataclass(frozen=True, kw_only=True)
class TemplateStep(Step):
    """`native(dspex.template("..."), into="prompt")`."""

    kind: ClassVar[str] = "template"

    template: PromptTemplate

    @property
    def default_name(self) -> str:
        return "template"

    def _own_flow(self) -> Flow:
        return Flow(_reads(self.template.text), Writes() if self.into is None else Writes.of((self.into,)))

    def check(self, *, is_collected: bool) -> None:
        if self.into is None and not is_collected:
            raise SettingsError("A template gives a text: name it with into='...'.", key="into")

    async def perform(self, job: StepJob) -> StepOutput:
        reads = self.own_flow.reads
        for name in reads.required:
            if name not in job.state:
                raise missing(name, job.node.name, job.state)
        state = Snapshot(job.state)
        values = {name: state[name] for name in reads.required | reads.optional if name in state}
        return StepOutput(self.template.render(**values))


def _reads(text: str) -> Reads:
    """Return the names in a template; optional are those with a default, or tested for being defined."""
    import jinja2.meta
    from jinja2 import nodes

    tree = jinja2.Environment().parse(text)
    names = frozenset(jinja2.meta.find_undeclared_variables(tree))
    guarded = [node.node for node in tree.find_all(nodes.Filter) if node.name in ("default", "d")]
    guarded += [node.node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined")]
    optional = names & {node.name for node in guarded if isinstance(node, nodes.Name)}
    return Reads(names - optional, optional)
