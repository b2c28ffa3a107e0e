"""The style sheet of reports: light and dark, as the reader's system has it; no font or image is fetched."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5b6570; --page: #fff; --tint: #f4f6f8; --line: #d9dee3;
  --accent: #1a62b5; --in: #d8f3dd; --out: #fbdcdc; --bad: #b42318; --good: #187a3a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #9aa5b1; --page: #14181c; --tint: #1d2329;
  --line: #343c45; --accent: #74b0f4; --in: #123d20; --out: #4b1c1c; --bad: #ff8f85; --good: #6fd08c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1080px;
  margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 18px; margin: 32px 0 8px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
.dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 16px 0; padding: 0; list-style: none; }
.tiles li { background: var(--tint); border-radius: 6px; padding: 8px 14px; }
.tiles b { display: block; font-size: 18px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: 4px 8px; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; unicode-bidi: isolate; }
th { white-space: nowrap; color: var(--dim); font-weight: 600; } td.n { text-align: right; white-space: nowrap; }
td.t { white-space: pre-wrap; min-width: 8em; max-width: 34em; }
pre, .text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--tint); border-radius: 6px; padding: 10px;
  font: 13px/1.5 ui-monospace, monospace; unicode-bidi: isolate; }
ins { background: var(--in); text-decoration: none; } del { background: var(--out); }
summary { cursor: pointer; color: var(--accent); }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font-size: 11px; }
svg .grid { stroke: var(--line); } svg .best { fill: none; stroke: var(--accent); stroke-width: 2; }
svg circle { fill: var(--dim); } svg .full { fill: var(--accent); } svg .result { fill: var(--good); }
svg .baseline { fill: var(--bad); }
"""
