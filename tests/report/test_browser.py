"""The page in a real browser: nothing in the console, nothing leaves the page, the filters filter."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from cxrx.report.html import page

PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium listens on descriptor 3 and talks on 4; this puts the pipes there.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Chromium:
    """One tab, driven by the DevTools protocol over a pipe, which needs no other package; `events` is what it says."""

    def __init__(self, profile, timeout=60):
        self.timeout, self.events, self.sent, self.rest = timeout, [], 0, b""
        ask, self.ask, self.answer, answer = (_high(end) for end in (*os.pipe(), *os.pipe()))
        command = [sys.executable, "-c", START, str(ask), str(answer), PROGRAM, *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=(ask, answer), stderr=subprocess.DEVNULL)
        os.close(ask)
        os.close(answer)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.process.kill()
        self.process.wait()
        os.close(self.ask)
        os.close(self.answer)

    def call(self, method, **parameters):
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self.session
        os.write(self.ask, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda found: found.get("id") == self.sent)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, url):
        """Load a page afresh; one that differs in its fragment only would not be loaded."""
        self.call("Page.navigate", url="about:blank")
        self.wait(lambda found: found.get("method") == "Page.loadEventFired")
        self.events.clear()
        self.call("Page.navigate", url=url)
        if not self.seen("Page.loadEventFired"):
            self.wait(lambda found: found.get("method") == "Page.loadEventFired")

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def seen(self, method):
        return [event["params"] for event in self.events if event["method"] == method]

    def size(self, width, height=900, *, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def wait(self, wanted):
        end = time.monotonic() + self.timeout
        while True:
            while b"\0" in self.rest:
                message, _, self.rest = self.rest.partition(b"\0")
                found = json.loads(message)
                if "method" in found:
                    self.events.append(found)
                if wanted(found):
                    return found
            if not select.select([self.answer], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.answer, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self.rest += part


def _high(descriptor):
    """Move a descriptor out of the way of 3 and 4."""
    import fcntl

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(descriptor)
    return copy


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def real(tiny, tmp_path_factory, report):
    """Return a page made from a results file."""
    return report(tiny.results, tmp_path_factory.mktemp("page") / "report.html", n_boot=50)


@pytest.fixture(scope="module")
def full(made, made_gallery, tmp_path_factory):
    """Return a page with every section, names out of which a script could run among them."""
    comparison = made(findings=('<script>alert("x")</script>', "Mass & more", "Nodule"), methods=("gradcam", "a'\"<b>"))
    out = tmp_path_factory.mktemp("full") / "report.html"
    out.write_text(page(comparison, made_gallery(comparison, 6)), encoding="utf-8")
    return out


SHOWN = "[...document.querySelectorAll('{}')].filter((e) => e.getClientRects().length)"


def shown(browser, selector, read="e.textContent"):
    return browser.run(SHOWN.format(selector) + f".map((e) => {read})")


def choose(browser, name, value):
    browser.run(
        f"{{const s = document.querySelector('[name={name}]'); s.value = {json.dumps(value)};"
        "s.dispatchEvent(new Event('change', {bubbles: true}))}"
    )


@pytest.mark.parametrize("kind", ["real", "full"])
def test_nothing_goes_wrong_and_nothing_leaves_the_page(browser, kind, request):
    url = request.getfixturevalue(kind).as_uri()
    browser.open(url)
    browser.run("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    assert browser.seen("Log.entryAdded") == browser.seen("Runtime.consoleAPICalled") == []
    assert browser.seen("Runtime.exceptionThrown") == browser.seen("Page.javascriptDialogOpening") == []
    asked = {event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")}
    assert {address for address in asked if not address.startswith("data:")} == {url}


def test_the_policy_stops_what_would_leave(browser, real):
    """The page itself asks for nothing; even what was smuggled into it could not."""
    browser.open(real.as_uri())
    broken = browser.run(
        "new Promise((done) => {const broken = new Set();"
        "document.addEventListener('securitypolicyviolation', (e) => {"
        "  broken.add(e.effectiveDirective); if (broken.size == 3) done([...broken].sort())});"
        "const i = new Image(); i.src = 'http://example.invalid/x.png'; document.body.append(i);"
        "const s = document.createElement('script'); s.textContent = 'window.smuggled = 1'; document.body.append(s);"
        "fetch('http://example.invalid/y').catch(() => 0)})"
    )
    assert broken == ["connect-src", "img-src", "script-src-elem"]
    assert browser.run("window.smuggled === undefined")


def test_films_and_maps_are_drawn_where_they_belong(browser, real):
    """Every card is as large as its film, and what it refers to is there, once."""
    browser.open(real.as_uri())
    every = "(selector) => [...document.querySelectorAll(selector)]"
    assert browser.run(f"({every})('use').every((u) => document.querySelector(u.getAttribute('href')))")
    ids = browser.run(f"({every})('[id]').map((e) => e.id)")
    assert len(ids) == len(set(ids)) > 50
    sizes = browser.run(
        "[...document.querySelectorAll('figure[data-method] .picture')].map((s) => {"
        "const [f, m] = s.querySelectorAll('use');"
        "const [a, b] = [f.getBBox(), m.getBoundingClientRect()], c = s.getBoundingClientRect();"
        "return [a.width / a.height, b.width / c.width, b.height / c.height]})"
    )
    assert sizes
    for film, width, height in sizes:
        assert film == pytest.approx(96 / 120)
        assert width == pytest.approx(1, abs=0.02)
        assert height == pytest.approx(1, abs=0.02)


def test_filters(browser, full):
    browser.open(full.as_uri())
    everything = shown(browser, ".case")
    assert len(everything) == 6
    assert shown(browser, "#shown") == ["6 of 6 cases"]
    choose(browser, "finding", "Mass & more")
    assert shown(browser, ".case", "e.dataset.finding") == ["Mass & more"] * 2
    assert shown(browser, "#shown") == ["2 of 6 cases"]
    choose(browser, "method", "a'\"<b>")
    choose(browser, "model", "b@2")
    cells = shown(browser, "figure[data-method]", "e.dataset.method + e.dataset.model")
    assert cells == ["a'\"<b>b@2"] * 2
    fragment = browser.run("location.hash")
    browser.run("document.querySelector('#filters button').click()")
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert len(shown(browser, ".case")) == 6
    browser.open(full.as_uri() + fragment)  # a link to what was chosen
    assert shown(browser, "figure[data-method]", "e.dataset.method + e.dataset.model") == cells
    browser.open(full.as_uri() + "#finding=nothing&method=edge")  # what is not there does not filter
    assert len(shown(browser, ".case")) == 6


def test_without_scripts_everything_is_there(browser, full):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(full.as_uri())
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        nodes = browser.call("DOM.querySelectorAll", nodeId=root, selector=".case .picture")["nodeIds"]
        assert len(nodes) == 6 + 6 * 2 * 4
        for node in nodes:
            assert browser.call("DOM.getBoxModel", nodeId=node)["model"]["height"] > 50
        form = browser.call("DOM.querySelector", nodeId=root, selector="#filters")["nodeId"]
        with pytest.raises(RuntimeError, match="box model"):
            browser.call("DOM.getBoxModel", nodeId=form)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_screen_and_can_be_read(browser, full, width, dark):
    """Nothing but tables scrolls sideways; text stands out from its ground (WCAG AA: 4.5)."""
    browser.size(width, dark=dark)
    browser.open(full.as_uri())
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    colours = browser.run(
        "(() => {const c = (e, n) => getComputedStyle(e)[n].match(/[0-9.]+/g).slice(0, 3).map(Number);"
        "const ground = c(document.body, 'backgroundColor');"
        "return [...document.querySelectorAll('p, th, h2, summary, a, .mark, .panels text')]"
        ".map((e) => [c(e, e.tagName == 'text' ? 'fill' : 'color'), ground])})()"
    )
    pairs = {(tuple(ink), tuple(ground)) for ink, ground in colours}
    assert len(pairs) > 4
    assert min(contrast(*pair) for pair in pairs) > 4.5
    ground = next(iter(pairs))[1]
    assert (sum(ground) < 200) == dark


def contrast(one, two):
    light = []
    for colour in (one, two):
        linear = [(v / 255 / 12.92) if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_it_can_be_used_by_keyboard_and_heard(browser, full):
    """Landmarks, headings in order, a name for every picture and control, a visible focus."""
    browser.open(full.as_uri())
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert browser.run("['header', 'nav', 'main'].every((n) => document.querySelector(n))")
    assert browser.run("[...document.querySelectorAll('[role=img]')].every((e) => e.getAttribute('aria-label'))")
    assert browser.run("[...document.querySelectorAll('select')].every((e) => e.labels.length == 1)")
    assert browser.run(
        "[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.getAttribute('href')))"
    )
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
