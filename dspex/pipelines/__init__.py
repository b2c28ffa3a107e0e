"""Pipelines: steps that run here and steps that run in workers, over one state.

    p = dspex.pipeline([
        dspex.native("question -> queries: list[str]"),
        dspex.parallel([dspex.native(search, index="docs"), dspex.native(search_web)], into="evidence"),
        dspex.python("dspy.ChainOfThought", signature="question, evidence -> answer"),
    ])
    p.run({"question": "..."})["answer"]

`pipeline` puts steps together and runs them, `steps/` holds the kinds of steps, `core/` what a run decides, and
`drivers/` has a run block or await.
"""
