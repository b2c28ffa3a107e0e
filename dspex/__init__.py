"""DSPex: run DSPy as a dependable part of other software.

Supervised pools of DSPy workers, native hot paths in this process, one API for both. Names are imported at first use;
importing `dspex` loads neither dspy nor any thread.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Supervisor": "pools.supervisor",
    "Session": "pools.session",
    "PoolConfig": "config",
    "Config": "config",
    "Event": "events",
    "configure": "defaults",
    "context": "scoped_defaults",
    "default_supervisor": "defaults",
    "LM": "lm.record",
    "Signature": "signatures.signature",
    "InputField": "signatures.field",
    "OutputField": "signatures.field",
    "signature": "signatures.signature",
    "BAMLAdapter": "adapters.adapter_record",
    "ChatAdapter": "adapters.adapter_record",
    "JSONAdapter": "adapters.adapter_record",
    "TwoStepAdapter": "adapters.adapter_record",
    "XMLAdapter": "adapters.adapter_record",
    "adapter": "adapters.given_adapter",
    "compile_signature": "adapters.compiled_signature",
    "template": "templates",
    "Prediction": "types.prediction",
    "Chunk": "types.chunk",
    "TraceStep": "types.trace_step",
    "BaseCallback": "types.base_callback",
    "Component": "types.component",
    "HistoryEntry": "lm.call_history",
    "history": "defaults",
    "inspect_history": "defaults",
    "Program": "programs.calling.program",
    "predict": "programs.factories.predict",
    "apredict": "programs.factories.predict",
    "predict_stream": "programs.factories.predict",
    "apredict_stream": "programs.factories.predict",
    "module": "programs.modules.module",
    "function": "programs.modules.module",
    "predictor": "programs.factories.program_factories",
    "chain_of_thought": "programs.factories.program_factories",
    "react": "programs.factories.program_factories",
    "best_of_n": "programs.factories.program_factories",
    "refine": "programs.factories.program_factories",
    "majority": "programs.factories.program_factories",
    "assertions": "programs.factories.program_factories",
    "rag": "programs.factories.program_factories",
    "explain": "programs.factories.program_factories",
    "majority_of": "programs.strategies.majority",
    "ensemble": "programs.strategies.ensemble",
    "Image": "types.image",
    "Audio": "types.audio",
    "File": "types.file",
    "History": "types.content",
    "Tool": "types.tool",
    "ToolCalls": "types.tool_calls",
    "ToolCallResults": "types.tool_calls",
    "Decision": "programs.options.routing",
    "Reason": "programs.options.routing",
    "map": "programs.calling.map",
    "amap": "programs.calling.map",
    "JobFacts": "programs.reports.job_facts",
    "Optimized": "programs.saving.optimized",
    "optimize": "programs.optimization.optimize",
    "aoptimize": "programs.optimization.optimize",
    "resume": "programs.optimization.resume",
    "cancel_job": "programs.optimization.cancel_request",
    "job_report": "programs.optimization.journal_report",
    "OptimizationJob": "programs.optimization.job",
    "JobProgress": "programs.optimization.job_progress",
    "JobEvent": "programs.optimization.job_events",
    "JobBudget": "programs.optimization.job_budget",
    "evaluate": "programs.evaluation.evaluate",
    "aevaluate": "programs.evaluation.evaluate",
    "Evaluation": "programs.evaluation.evaluation",
    "EvaluationRow": "programs.evaluation.evaluation_row",
    "compare": "programs.evaluation.compare",
    "acompare": "programs.evaluation.compare",
    "ProgramComparison": "programs.scores.program_comparison",
    "ComparedRow": "programs.scores.program_comparison",
    "PairedComparison": "programs.scores.paired_comparison",
    "ConfidenceInterval": "programs.scores.confidence",
    "load": "programs.factories.loading",
    "Pipeline": "pipelines.pipeline",
    "Step": "pipelines.core.step",
    "pipeline": "pipelines.pipeline",
    "native": "pipelines.steps.step_factories",
    "python": "pipelines.steps.step_factories",
    "parallel": "pipelines.steps.composite_factories",
    "conditional": "pipelines.steps.composite_factories",
    "map_each": "pipelines.steps.composite_factories",
    "cache_step": "pipelines.core.step_cache",
    "command": "pipelines.steps.command_step",
    "Result": "pipelines.core.results",
    "StepRecord": "pipelines.core.results",
    "Optimization": "pipelines.core.results",
    "PipelineEvent": "pipelines.core.run_events",
    "EventKind": "pipelines.core.run_events",
    "BM25Index": "retrieval.bm25_index",
    "VectorIndex": "retrieval.vector_index",
    "HybridIndex": "retrieval.hybrid_index",
    "embed": "retrieval.embed",
    "aembed": "retrieval.embed",
    "Cache": "lm.cache",
    "Account": "lm.usage",
    "UsageStats": "usage_stats",
    "usage": "defaults",
    "connect": "control",
    "asgi": "serving.asgi",
    "metrics_app": "telemetry.metrics_app",
    "register_metrics": "telemetry.metrics_app",
    "trace_spans": "telemetry.trace_spans",
}

if TYPE_CHECKING:
    from . import config as config
    from . import errors as errors
    from . import events as events
    from . import testing as testing
    from .adapters.adapter_record import BAMLAdapter as BAMLAdapter
    from .adapters.adapter_record import ChatAdapter as ChatAdapter
    from .adapters.adapter_record import JSONAdapter as JSONAdapter
    from .adapters.adapter_record import TwoStepAdapter as TwoStepAdapter
    from .adapters.adapter_record import XMLAdapter as XMLAdapter
    from .adapters.compiled_signature import compile_signature as compile_signature
    from .adapters.given_adapter import adapter as adapter
    from .config import Config as Config
    from .config import PoolConfig as PoolConfig
    from .control import connect as connect
    from .defaults import configure as configure
    from .defaults import default_supervisor as default_supervisor
    from .defaults import history as history
    from .defaults import inspect_history as inspect_history
    from .defaults import usage as usage
    from .errors import *  # noqa: F403
    from .events import Event as Event
    from .lm.cache import Cache as Cache
    from .lm.call_history import HistoryEntry as HistoryEntry
    from .lm.record import LM as LM
    from .lm.usage import Account as Account
    from .pipelines.core.results import Optimization as Optimization
    from .pipelines.core.results import Result as Result
    from .pipelines.core.results import StepRecord as StepRecord
    from .pipelines.core.run_events import EventKind as EventKind
    from .pipelines.core.run_events import PipelineEvent as PipelineEvent
    from .pipelines.core.step import Step as Step
    from .pipelines.core.step_cache import cache_step as cache_step
    from .pipelines.pipeline import Pipeline as Pipeline
    from .pipelines.pipeline import pipeline as pipeline
    from .pipelines.steps.command_step import command as command
    from .pipelines.steps.composite_factories import conditional as conditional
    from .pipelines.steps.composite_factories import map_each as map_each
    from .pipelines.steps.composite_factories import parallel as parallel
    from .pipelines.steps.step_factories import native as native
    from .pipelines.steps.step_factories import python as python
    from .pools.session import Session as Session
    from .pools.supervisor import Supervisor as Supervisor
    from .programs.calling.map import amap as amap
    from .programs.calling.map import map as map
    from .programs.calling.program import Program as Program
    from .programs.evaluation.compare import acompare as acompare
    from .programs.evaluation.compare import compare as compare
    from .programs.evaluation.evaluate import aevaluate as aevaluate
    from .programs.evaluation.evaluate import evaluate as evaluate
    from .programs.evaluation.evaluation import Evaluation as Evaluation
    from .programs.evaluation.evaluation_row import EvaluationRow as EvaluationRow
    from .programs.factories.loading import load as load
    from .programs.factories.predict import apredict as apredict
    from .programs.factories.predict import apredict_stream as apredict_stream
    from .programs.factories.predict import predict as predict
    from .programs.factories.predict import predict_stream as predict_stream
    from .programs.factories.program_factories import assertions as assertions
    from .programs.factories.program_factories import best_of_n as best_of_n
    from .programs.factories.program_factories import chain_of_thought as chain_of_thought
    from .programs.factories.program_factories import explain as explain
    from .programs.factories.program_factories import majority as majority
    from .programs.factories.program_factories import predictor as predictor
    from .programs.factories.program_factories import rag as rag
    from .programs.factories.program_factories import react as react
    from .programs.factories.program_factories import refine as refine
    from .programs.modules.module import function as function
    from .programs.modules.module import module as module
    from .programs.optimization.cancel_request import cancel_job as cancel_job
    from .programs.optimization.job import OptimizationJob as OptimizationJob
    from .programs.optimization.job_budget import JobBudget as JobBudget
    from .programs.optimization.job_events import JobEvent as JobEvent
    from .programs.optimization.job_progress import JobProgress as JobProgress
    from .programs.optimization.journal_report import job_report as job_report
    from .programs.optimization.optimize import aoptimize as aoptimize
    from .programs.optimization.optimize import optimize as optimize
    from .programs.optimization.resume import resume as resume
    from .programs.options.routing import Decision as Decision
    from .programs.options.routing import Reason as Reason
    from .programs.reports.job_facts import JobFacts as JobFacts
    from .programs.saving.optimized import Optimized as Optimized
    from .programs.scores.confidence import ConfidenceInterval as ConfidenceInterval
    from .programs.scores.paired_comparison import PairedComparison as PairedComparison
    from .programs.scores.program_comparison import ComparedRow as ComparedRow
    from .programs.scores.program_comparison import ProgramComparison as ProgramComparison
    from .programs.strategies.ensemble import ensemble as ensemble
    from .programs.strategies.majority import majority_of as majority_of
    from .retrieval.bm25_index import BM25Index as BM25Index
    from .retrieval.embed import aembed as aembed
    from .retrieval.embed import embed as embed
    from .retrieval.hybrid_index import HybridIndex as HybridIndex
    from .retrieval.vector_index import VectorIndex as VectorIndex
    from .scoped_defaults import context as context
    from .serving.asgi import asgi as asgi
    from .signatures.field import InputField as InputField
    from .signatures.field import OutputField as OutputField
    from .signatures.signature import Signature as Signature
    from .signatures.signature import signature as signature
    from .telemetry.metrics_app import metrics_app as metrics_app
    from .telemetry.metrics_app import register_metrics as register_metrics
    from .telemetry.trace_spans import trace_spans as trace_spans
    from .templates import template as template
    from .types.audio import Audio as Audio
    from .types.base_callback import BaseCallback as BaseCallback
    from .types.chunk import Chunk as Chunk
    from .types.component import Component as Component
    from .types.content import History as History
    from .types.file import File as File
    from .types.image import Image as Image
    from .types.prediction import Prediction as Prediction
    from .types.tool import Tool as Tool
    from .types.tool_calls import ToolCallResults as ToolCallResults
    from .types.tool_calls import ToolCalls as ToolCalls
    from .types.trace_step import TraceStep as TraceStep
    from .usage_stats import UsageStats as UsageStats


_SUBMODULES = ("errors", "events", "config", "testing")  # found as attributes too, as `dspex.errors.LMError` needs


if not TYPE_CHECKING:  # a checker that saw it would take every misspelt name for Any

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return _public_names()
        home = _HOMES.get(name)
        if home is not None:
            value = getattr(importlib.import_module(f".{home}", __name__), name)
        elif name in _SUBMODULES:
            return importlib.import_module(f".{name}", __name__)
        elif name in _error_names():
            value = getattr(importlib.import_module(".errors", __name__), name)
        else:
            raise AttributeError(f"module 'dspex' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return _public_names()


def _public_names() -> list[str]:
    return sorted({*_HOMES, *_error_names()})


def _error_names() -> list[str]:
    errors = importlib.import_module(".errors", __name__)
    return [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DspexError)
    ]
