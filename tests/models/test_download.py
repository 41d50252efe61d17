"""Weights with an address: fetched once, under another name until they are whole and right."""

from __future__ import annotations

import hashlib
import logging
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save
from torch import nn

from cxrx.errors import CxrxError, PluginError, UsageError
from cxrx.models import load
from cxrx.models.download import fetch, home
from cxrx.models.load import load_model
from cxrx.registry import Registry
from cxrx.specs import InputSpec, ModelSpec

WEIGHTS = save({"fc.weight": torch.full((2, 64), 0.5), "fc.bias": torch.zeros(2)})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


class Small(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.fc = nn.Linear(64, outputs)

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CXRX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CXRX_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve(tmp_path):
    """Serve files on this machine and count the requests."""
    servers, asked = [], []

    def start(handler=None):
        (tmp_path / "public").mkdir(exist_ok=True)
        (tmp_path / "public" / "small v1.safetensors").write_bytes(WEIGHTS)

        class Counting(handler or SimpleHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 - the name that the standard library calls
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *_):
                pass

        options = {} if handler else {"directory": str(tmp_path / "public")}
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, **options))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/small%20v1.safetensors", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_is_fetched_once_with_its_licence_and_then_kept(serve, caplog):
    address, asked = serve()
    with caplog.at_level(logging.INFO, "cxrx"):
        path = fetch(address, SHA256, "CC-BY-4.0")
        assert fetch(address, SHA256, "CC-BY-4.0") == path
    assert path.read_bytes() == WEIGHTS
    assert path.parent == home() / "weights"
    assert [file.name for file in path.parent.iterdir()] == [f"{SHA256[:16]}-small_20v1.safetensors"]
    assert len(asked) == 1
    assert [record.getMessage() for record in caplog.records] == [f"fetching {address} (licence: CC-BY-4.0)"]


def test_a_model_with_an_address_loads_by_name(serve, monkeypatch):
    address, asked = serve()
    registry = Registry("model", ModelSpec)
    spec = InputSpec(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))
    build = lambda labels: Small(len(labels))  # noqa: E731
    registry.add("test", ModelSpec("small", build, ("a", "b"), spec, weights=address, weights_sha256=SHA256))
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))
    for _ in range(2):
        model = load_model("small", device="cpu")
        assert torch.equal(model.logits(torch.ones(1, 1, 8, 8)), torch.tensor([[32.0, 32.0]]))
        assert model.notes == ()
    assert len(asked) == 1


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_forbids_to_fetch_but_not_to_use(value, serve, monkeypatch):
    address, asked = serve()
    monkeypatch.setenv("CXRX_OFFLINE", value)
    with pytest.raises(UsageError, match="CXRX_OFFLINE forbids to fetch it") as error:
        fetch(address, SHA256)
    assert address in error.value.hint
    assert asked == []
    monkeypatch.setenv("CXRX_OFFLINE", "0")
    path = fetch(address, SHA256)
    monkeypatch.setenv("CXRX_OFFLINE", value)
    assert fetch(address, SHA256) == path


def test_another_file_than_the_declared_one_is_thrown_away(serve):
    address, _ = serve()
    with pytest.raises(CxrxError, match=f"its sha256 is {SHA256}, not {'0' * 64}"):
        fetch(address, "0" * 64)
    assert list((home() / "weights").iterdir()) == []


class Breaking(BaseHTTPRequestHandler):
    """Promises the file and sends half of it."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        self.wfile.write(WEIGHTS[: len(WEIGHTS) // 2])


def test_a_broken_connection_leaves_nothing(serve):
    address, _ = serve(Breaking)
    with pytest.raises(CxrxError, match=r"its sha256 is|cannot be fetched"):
        fetch(address, SHA256)
    assert list((home() / "weights").iterdir()) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/w.pth", "http://127.0.0.1:{port}/none.pth"])
def test_what_cannot_be_reached_is_a_sentence(address, serve):
    own, _ = serve()
    with pytest.raises(CxrxError, match="cannot be fetched") as error:
        fetch(address.format(port=own.split(":")[2].split("/")[0]), SHA256)
    assert "--weights" in error.value.hint
    assert list((home() / "weights").iterdir()) == []


@pytest.mark.parametrize("sha256", ["", "abc", "../" * 21 + "x"])
def test_an_address_without_a_digest_is_the_plugins_fault(sha256):
    with pytest.raises(PluginError, match="need the sha256"):
        fetch("https://example.org/w.pth", sha256)


def test_only_the_web_is_an_address():
    with pytest.raises(PluginError, match="no web address"):
        fetch("file:///etc/passwd", SHA256)


def test_without_cxrx_home_it_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("CXRX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "cxrx"
