"""A plugin that every command would wait for is found out, however it spends the time, and however busy the machine."""

from __future__ import annotations

import pytest

from cxrx.plugins import Plugin
from cxrx.testing import named
from cxrx.testing.outcome import Breach

HOOK = "@hookimpl\ndef register_models(register): pass\n"

SLOW = {
    "sleeps": "import time\ntime.sleep(1.2)\n" + HOOK,
    "computes": "import time\nwhile time.process_time() < 2: pass\n" + HOOK,
    "registers-slowly": "import time\n@hookimpl\ndef register_models(register): time.sleep(1.2)\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_plugin_is_caught(name, add_plugin, monkeypatch):
    monkeypatch.setattr(named, "_TRIES", 2)
    add_plugin(name, SLOW[name])
    with pytest.raises(Breach, match=r"loading it takes 1\.\d s, which every command waits for"):
        named._cheap(Plugin(name))


def test_a_quick_plugin_passes_and_is_not_charged_for_cxrx(add_plugin):
    add_plugin("quick", HOOK)
    assert float(named._cheap(Plugin("quick")).split()[0]) < 0.5


def test_a_plugin_that_prints_is_measured_too(add_plugin):
    add_plugin("chatty", "print('hello')\n" + HOOK)
    assert named._cheap(Plugin("chatty")).endswith(" s")


def test_what_is_heavy_is_named(add_plugin):
    add_plugin("heavy", "import h5py\n" + HOOK)
    with pytest.raises(Breach, match="loading it imports h5py"):
        named._cheap(Plugin("heavy"))
