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
    "Session": "pools.sessions",
    "PoolConfig": "config",
    "Config": "config",
    "Event": "events",
    "configure": "defaults",
    "default_supervisor": "defaults",
    "LM": "inprocess.lm.record",
    "Signature": "inprocess.signatures",
    "InputField": "inprocess.fields",
    "OutputField": "inprocess.fields",
    "signature": "inprocess.signatures",
    "compile_signature": "inprocess.adapters.compiled",
    "template": "inprocess.templates",
    "Prediction": "inprocess.prediction",
    "Chunk": "inprocess.predictor",
    "Program": "programs.program",
    "predict": "programs.predicting",
    "apredict": "programs.predicting",
    "predict_stream": "programs.predicting",
    "apredict_stream": "programs.predicting",
    "predictor": "programs.predictors",
    "chain_of_thought": "programs.predictors",
    "react": "programs.predictors",
    "best_of_n": "programs.predictors",
    "refine": "programs.predictors",
    "majority": "programs.predictors",
    "assertions": "programs.predictors",
    "rag": "programs.predictors",
    "explain": "programs.predictors",
    "majority_of": "inprocess.votes",
    "Tool": "inprocess.tool_types",
    "ToolCalls": "inprocess.tool_calls",
    "ToolCallResults": "inprocess.tool_calls",
    "Decision": "router",
    "Reason": "router",
    "map": "programs.mapping",
    "amap": "programs.mapping",
    "Optimized": "programs.saved",
    "optimize": "programs.optimizing",
    "aoptimize": "programs.optimizing",
    "evaluate": "programs.optimizing",
    "load": "programs.saved",
    "Pipeline": "pipelines",
    "Step": "pipelines",
    "pipeline": "pipelines",
    "native": "pipelines",
    "python": "pipelines",
    "parallel": "pipelines",
    "conditional": "pipelines",
    "map_each": "pipelines",
    "cache_step": "pipelines",
    "command": "pipelines",
    "Result": "pipelines",
    "StepRecord": "pipelines",
    "PipelineEvent": "pipelines",
    "EventKind": "pipelines",
    "BM25Index": "inprocess.retrieval",
    "Cache": "inprocess.cache",
    "Account": "inprocess.lm.ledger",
    "UsageStats": "spending",
    "usage": "defaults",
    "connect": "control",
}
_ERRORS = "errors"

if TYPE_CHECKING:
    from .config import Config as Config
    from .config import PoolConfig as PoolConfig
    from .control import connect as connect
    from .defaults import configure as configure
    from .defaults import default_supervisor as default_supervisor
    from .defaults import usage as usage
    from .errors import *  # noqa: F403
    from .events import Event as Event
    from .inprocess.adapters.compiled import compile_signature as compile_signature
    from .inprocess.cache import Cache as Cache
    from .inprocess.fields import InputField as InputField
    from .inprocess.fields import OutputField as OutputField
    from .inprocess.lm.ledger import Account as Account
    from .inprocess.lm.record import LM as LM
    from .inprocess.prediction import Prediction as Prediction
    from .inprocess.predictor import Chunk as Chunk
    from .inprocess.retrieval import BM25Index as BM25Index
    from .inprocess.signatures import Signature as Signature
    from .inprocess.signatures import signature as signature
    from .inprocess.templates import template as template
    from .inprocess.tool_calls import ToolCallResults as ToolCallResults
    from .inprocess.tool_calls import ToolCalls as ToolCalls
    from .inprocess.tool_types import Tool as Tool
    from .inprocess.votes import majority_of as majority_of
    from .pipelines import EventKind as EventKind
    from .pipelines import Pipeline as Pipeline
    from .pipelines import PipelineEvent as PipelineEvent
    from .pipelines import Result as Result
    from .pipelines import Step as Step
    from .pipelines import StepRecord as StepRecord
    from .pipelines import cache_step as cache_step
    from .pipelines import command as command
    from .pipelines import conditional as conditional
    from .pipelines import map_each as map_each
    from .pipelines import native as native
    from .pipelines import parallel as parallel
    from .pipelines import pipeline as pipeline
    from .pipelines import python as python
    from .pools.sessions import Session as Session
    from .pools.supervisor import Supervisor as Supervisor
    from .programs.mapping import amap as amap
    from .programs.mapping import map as map
    from .programs.optimizing import aoptimize as aoptimize
    from .programs.optimizing import evaluate as evaluate
    from .programs.optimizing import optimize as optimize
    from .programs.predicting import apredict as apredict
    from .programs.predicting import apredict_stream as apredict_stream
    from .programs.predicting import predict as predict
    from .programs.predicting import predict_stream as predict_stream
    from .programs.predictors import assertions as assertions
    from .programs.predictors import best_of_n as best_of_n
    from .programs.predictors import chain_of_thought as chain_of_thought
    from .programs.predictors import explain as explain
    from .programs.predictors import majority as majority
    from .programs.predictors import predictor as predictor
    from .programs.predictors import rag as rag
    from .programs.predictors import react as react
    from .programs.predictors import refine as refine
    from .programs.program import Program as Program
    from .programs.saved import Optimized as Optimized
    from .programs.saved import load as load
    from .router import Decision as Decision
    from .router import Reason as Reason
    from .spending import UsageStats as UsageStats


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(f".{home}", __name__), name)
    elif not name.startswith("_") and name[:1].isupper():
        errors = importlib.import_module(f".{_ERRORS}", __name__)
        value = vars(errors).get(name)
        if not (isinstance(value, type) and issubclass(value, errors.DspexError)):
            raise AttributeError(f"module 'dspex' has no attribute {name!r}")
    elif name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module 'dspex' has no attribute {name!r}")
    globals()[name] = value
    return value


_SUBMODULES = ("errors", "events", "config", "testing")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBMODULES})
