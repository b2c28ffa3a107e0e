"""Unit: every fault of the settings is told, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.cli.environment_names import strange_variables
from dspex.cli.init_command import settings_text
from dspex.cli.settings_faults import settings_faults
from dspex.cli.settings_places import SettingsPlaces
from dspex.cli.shown_settings import HIDDEN, shown_settings

WRONG = """\
[pool.x]
size = 3

[pools.dspy]
siez = 4
concurrency = "lots"
env = { A = 3 }
memory_cap = '''
4 QiB'''
options.a = 1

[pools."odd.name"]
bridge = "nope"
start_method = "spawn"

[lm]
modle = "x/y"
[cache]
pth = "a"
ttl = -1
[control]
max_client = 3
[jobs]
fodler = "x"
[budget]
usdd = 3
"""
TOLD = {
    1: "Did you mean 'pools'",
    5: "Did you mean 'size'",
    6: "a whole number is needed",
    7: "the variable 'A' must be text",
    8: "pools.dspy.memory_cap",
    13: "no such file",
    14: "start_method is 'spawn'",
    17: "Did you mean 'model'?",
    19: "Did you mean 'path'?",
    20: "ttl must be",
    22: "Did you mean 'max_clients'?",
    24: "Did you mean 'folder'?",
    26: "Did you mean 'usd'?",
}


def test_every_fault_is_told_with_its_line_and_a_near_name(tmp_path: Path) -> None:
    """unit: one table's do not hide another's, one setting's not the next one's"""
    file = tmp_path / "dspex.toml"
    file.write_text(WRONG)
    faults = settings_faults(str(file), {})
    found = {fault.line: fault.message for fault in faults if fault.line}
    for line, said in TOLD.items():
        assert said in found.get(line, ""), (line, found)
    assert {fault.line: fault.column for fault in faults if fault.line in TOLD} == dict.fromkeys(TOLD, 1) | {1: 2}
    assert {fault.level for fault in faults} == {"error"}


def test_each_line_that_is_no_toml_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    """unit"""
    file = tmp_path / "dspex.toml"
    file.write_text('[pools.dspy]\nsize = = 3\nfoo\nconcurrency = 0\n[lm\nmodel = "a/b"\nmodel = "c/d"\n')
    assert [(fault.line, fault.column) for fault in settings_faults(str(file), {})] == [
        (2, 8),
        (3, 4),
        (4, 1),
        (5, 4),
        (6, 1),
        (7, 14),
    ]


@pytest.mark.parametrize("text", ["", "[pools.dspy]\nsize = 2\n", settings_text(), settings_text("local/smollm2")])
def test_settings_that_are_right_have_no_fault(tmp_path: Path, text: str) -> None:
    """unit: those of `dspex init` too"""
    file = tmp_path / "dspex.toml"
    file.write_text(text)
    assert settings_faults(str(file), {"DSPEX_DSPY_SIZE": "3", "DSPEX_LM": "a/b", "HOME": "/"}) == []


def test_variables_are_checked_with_the_settings() -> None:
    """unit: a value that cannot be is an error of the variable; a name that means nothing is a warning"""
    environ = {"DSPEX_DSPY_SIZE": "many", "DSPEX_DSPY_SZIE": "3", "DSPEX_CONFG": "x", "DSPEX_ODD": ""}
    faults = settings_faults(None, environ)
    assert [(fault.place, fault.level) for fault in faults] == [
        ("$DSPEX_DSPY_SIZE", "error"),
        ("$DSPEX_CONFG", "warning"),
        ("$DSPEX_DSPY_SZIE", "warning"),
        ("$DSPEX_ODD", "warning"),
    ]
    assert [one.near[:1] for one in strange_variables(["dspy"], environ)] == [
        ("DSPEX_CONFIG",),
        ("DSPEX_DSPY_SIZE",),
        (),
    ]


def test_the_variables_of_every_pool_are_known() -> None:
    """unit: as the settings read them, also of a pool whose name has other characters"""
    assert strange_variables(["a-b"], {"DSPEX_A_B_SIZE": "1", "DSPEX_A_B_CALL_TIMEOUT": "3s"}) == []
    assert strange_variables(["dspy"], {"DSPEX_WEB_SIZE": "1"}) != []


def test_places_are_those_of_keys_in_any_form() -> None:
    """unit: dotted, quoted, in tables within values; what looks like a key in a text or a comment is none"""
    text = '[a."b.c"]\n# x = 1\n"q k" . d = """\ny = 2\n"""\nl = [\n  1, # z = 3\n]\n'
    text += '  t = { u = "v = 1", w = 2 }\n[[m]]\nn=1\n'
    found = {".".join(path): (place.line, place.column) for path, place in SettingsPlaces.of_text(text).places.items()}
    assert found == {
        "a": (1, 2),
        "a.b.c": (1, 2),
        "a.b.c.q k": (3, 1),
        "a.b.c.q k.d": (3, 1),
        "a.b.c.l": (6, 1),
        "a.b.c.t": (9, 3),
        "a.b.c.t.u": (9, 9),
        "a.b.c.t.w": (9, 22),
        "m": (10, 3),
        "m.n": (11, 1),
    }


def test_settings_are_shown_with_their_origin_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unit: default, line, variable"""
    file = tmp_path / "dspex.toml"
    file.write_text(
        '[pools.dspy]\nsize = 2\nenv = { MY_TOKEN = "canary-1", LANG = "C" }\noptions = { api_key = "canary-2" }\n'
        '[lm]\nmodel = "openai/m"\napi_key = "canary-3"\nheaders = { authorization = "canary-4" }\n'
        '[lms.other]\nmodel = "openai/o"\napi_key = "canary-5"\n'
    )
    file.chmod(0o600)
    monkeypatch.setenv("DSPEX_DSPY_CONCURRENCY", "3")
    shown = shown_settings(str(file))
    found = {f"{one.table}.{one.key}": (one.value, one.origin) for one in shown}
    assert found["pools.dspy.size"] == (2, f"{file}:2")
    assert found["pools.dspy.concurrency"] == (3, "$DSPEX_DSPY_CONCURRENCY")
    assert found["pools.dspy.bridge"] == ("dspy", "default")
    assert found["lm.api_key"] == (HIDDEN, f"{file}:7")
    assert found["lms.other.model"] == ("openai/o", f"{file}:10")
    assert "canary" not in repr(shown)
