"""The scorecard of `dspex bench --chaos`: the same injected faults for this pool and its peers.

    card        which cells there are, and running them one after another
    trial       one cell, once: starts a host process, watches it from outside, sweeps up what it leaves
    host        the host process: one peer, one case
    case        what a case is; `cases` has them all, in terms of a `Stage`; `case_steps` has what several do alike
    peers       what a pool must do to be compared, and which pools there are; `peer_adapters` does it for each
    fault_kinds the functions that run in the pools' workers: those of the shipped `faults` bridge
    scoring     pure: from the facts of a cell's trials to held or failed, and to words
    report      the cells as text and as JSON

A new case is a function in `cases`; a new peer is a class in `peer_adapters` and a line in `peers`.
"""
