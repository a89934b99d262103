"""The one-page report: well-formed, self-contained, every number that of the JSON, whatever layers are called."""

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import made

from tncompress import replace_dense, report
from tncompress.conversion.curves import Front, Spectrum
from tncompress.reporting import charts
from tncompress.reporting.page import page
from tncompress.reporting.report import Report, Row

VOID = {"meta", "br", "img", "hr", "input", "link"}
LOADING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
UNMARKED = {"tn", "tick"}  # drawings, compared with the specs; numbers of axes


class Reader(HTMLParser):
    """A page as a flat list of texts with the elements that they are in. Refuses what is not nested well."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append((data, tuple(self.open)))

    def by_id(self, name):
        return "".join(text for text, inside in self.texts if inside and inside[-1][1].get("id") == name)


def value_at(data, pointer):
    for part in pointer.split("/"):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def is_rounded(text, value):
    """Whether a text is a number to as many digits as it has."""
    match = re.fullmatch(r"([\d,]+(?:\.(\d+))?)(?:e([+-]\d+))?(%| ms)?", text)
    assert match, text
    unit = {"%": 1e-2, " ms": 1e-3, None: 1.0}[match[4]] * 10 ** int(match[3] or 0)
    digits = match[2] or ""
    # Style "short" drops zeros at the end: four significant digits, at least, are always right.
    step = max(10.0 ** -len(digits), 1e-30) * unit
    shown = float(match[1].replace(",", "")) * unit
    return abs(shown - value) <= 0.5000001 * step or abs(shown - value) <= 0.0005001 * abs(value)


def check(text, result):
    """All that holds for every page."""
    read = Reader(text)
    assert json.loads(read.by_id("report")) == json.loads(result.to_json())
    for _, attributes in read.attributes:
        assert not LOADING & attributes.keys()
        assert not any("url(" in (value or "") for value in attributes.values())
    data, seen = json.loads(result.to_json()), set()
    for _, attributes in read.attributes:
        if "data-json-title" in attributes:
            check_shown(attributes["title"], value_at(data, attributes["data-json-title"]))
    for shown, inside in read.texts:
        pointers = [attributes["data-json"] for _, attributes in inside if "data-json" in attributes]
        classes = {word for _, attributes in inside for word in (attributes.get("class") or "").split()}
        if pointers:
            check_shown(shown, value_at(data, pointers[-1]))
            seen.add(pointers[-1])
        elif not (classes & UNMARKED or inside[-1][0] in ("script", "style", "pre") if inside else True):
            assert not re.search(r"\d", shown) or inside[-1][0] in ("title", "figcaption"), shown
    return read, seen


def check_shown(shown, value):
    if value is None:
        assert shown.endswith("not known")
    elif isinstance(value, str):
        assert shown == value or shown.endswith(f": {value}")
    else:
        assert is_rounded(shown.rsplit(": ", 1)[-1], value), (shown, value)


def row(layer, **changes):
    plain = Row(layer, None, None, None, 1200, 1200, 2400, 2400, False, None, None, None, None, None, "", "in exclude")
    return replace(plain, **changes)


def network(layer, rank=4, **changes):
    sizes = {"equation": "i, i r, r o -> o", "sizes": f"i=30, o=40, r={rank}", "rank": rank}
    errors = {"weight_error": 0.51234567, "output_error": 1.5e-5, "predicted_loss": 0.0123456, "held_out_ratio": 1.25}
    params = {"params_after": 70 * rank, "flops_after": 140 * rank, "method": "closed form", "reason": None}
    spectrum = Spectrum(tuple(range(30)), tuple(0.4 * 0.8**k for k in range(30)))
    return row(layer, **{"form": "low_rank", **sizes, **errors, **params, "spectrum": spectrum, **changes})


FRONT = Front("keep", "objective", ((1e3, 2.0), (123456.0, 0.0123), (2e6, 0.0)), (123456.0, 0.0123))


def result_of(*rows, model="model", **more):
    recipe = {r.layer: {"form": r.form, "spec": {"equation": r.equation}} for r in rows if r.form}
    return Report(model, rows, 2_000_000, 1_234_567, recipe, **more)


@pytest.fixture(scope="module")
def small():
    entry = keras.Input((16,))
    hidden = keras.layers.Dense(32, "tanh", name="wide")(entry)
    middle = keras.layers.Dense(32, "tanh", name="skipped")(hidden)
    model = keras.Model(entry, keras.layers.Dense(16, name="back")(middle), name="tiny")
    inputs = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    return replace_dense(model, keep=0.5, exclude="skipped", calibration=[inputs], objective="outputs")


def test_a_real_one_shows_all_there_is(small):
    result = report(small)
    read, seen = check(page(result.to_json()), result)
    assert {"params_before", "params_after", "keep", "predicted_loss", "front/chosen/1"} <= seen
    for number, found in enumerate(result.rows):
        wanted = [
            "layer",
            "params_before",
            *(["rank", "output_error", "predicted_loss", "sizes"] if found.form else []),
        ]
        assert {f"rows/{number}/{field}" for field in wanted} <= seen
    assert "in exclude" in [text for text, _ in read.texts]
    assert json.loads(read.by_id("recipe")) == result.recipe


def test_the_embedded_json_is_that_of_the_report(small):
    assert Reader(page(report(small).to_json())).by_id("report") == report(small).to_json()


def test_every_network_is_drawn_once_with_its_order():
    result = result_of(network("a/0"), network("a/1"), network("b", rank=7))
    text = page(result.to_json())
    check(text, result)
    assert text.count('class="tn"') == 2
    assert "r = 4 ②" in text
    assert "r = 7 ②" in text
    (order, _) = json.loads(result.to_json())["networks"]
    assert [step["flops"] for step in order["steps"]] == [2 * 30 * 4, 2 * 4 * 40]
    assert order["layers"] == ["a/0", "a/1"]


@pytest.mark.parametrize(("dim", "rank", "skipped"), [(40, 4, 0), (40, 39, 0), (1000, 600, 600)])
def test_steps_with_pivots_are_those_that_are_computed(dim, rank, skipped):
    """The cores are not multiplied with each other, though it were cheaper for a rank of 39."""
    steps = [2 * dim * rank, 2 * rank * (dim - skipped)]
    result = result_of(network("a", rank, sizes=f"i={dim}, o={dim}, r={rank}", flops_after=sum(steps), pivots=True))
    (order,) = json.loads(result.to_json())["networks"]
    assert (order["pivots"], [step["flops"] for step in order["steps"]]) == (True, steps)
    assert "without the identity block" in page(result.to_json())


def test_all_fields_together():
    rows = [network(f"block_{k}/dense", rank=k + 2, seconds_before=2e-3, seconds_after=1e-3) for k in range(3)]
    bands = {"form": "bands", "equation": None, "sizes": "10x8, 90x3", "spectrum": None}
    ratio = {"held_out_ratio": 2.5}
    rows = [replace(found, **ratio) for found in rows]
    result = result_of(
        *rows, replace(network("table", **bands), rank=None), row("head"), front=FRONT, measured_loss=0.0456
    )
    read, seen = check(page(result.to_json()), result)
    assert {"warnings/0", "front/points/1/0", "rows/0/seconds_after", "measured_loss"} <= seen
    assert any("10x8, 90x3" in text for text, _ in read.texts)


@pytest.mark.parametrize(
    ("budget", "loss", "words"),
    [
        ("flops", "outputs", "FLOPs a token, at"),
        ("latency", "weights", "seconds, estimated, at"),
        ("params", "objective", "parameters of the layers"),
    ],
)
def test_what_the_front_is_of(budget, loss, words):
    result = result_of(network("a"), front=replace(FRONT, budget=budget, loss=loss))
    text = page(result.to_json())
    check(text, result)
    assert words in text


def test_what_is_not_known_is_said():
    bare = dict.fromkeys(("output_error", "predicted_loss", "held_out_ratio", "spectrum"))
    result = result_of(network("a", **bare))
    text = page(result.to_json())
    check(text, result)
    for words in ("there was no objective", "no calibration data", "There is no front to show", "No spectra are known"):
        assert words in text


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
def test_of_a_model_that_is_not_compressed(kind):
    result = report(made(kind)[0])
    text = page(result.to_json())
    check(text, result)
    assert "This model is not compressed" in text
    assert "The recipe" not in text


def test_of_a_model_with_a_part_that_is_compressed(small):
    entry = keras.Input((16,))
    whole = keras.Model(entry, keras.layers.Dense(8, name="head")(small(entry)), name="whole")
    result = report(whole)
    read, _ = check(page(result.to_json()), result)
    assert {found.layer for found in result.replaced} == {"tiny/wide", "tiny/back"}
    assert all(found.spectrum for found in result.replaced)
    assert {"tiny/wide", "head"} <= {text for text, _ in read.texts}


def test_of_a_model_without_dense_layers():
    result = Report("empty", (), 0, 0, {})
    check(page(result.to_json()), result)


names = st.text(min_size=1, max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", "</script>", "<!--", "a&amp;b", "\"'>", "]]>", "</style>", "a: 7", "x/../y", "&lt"]
)


@settings(max_examples=60)
@given(names, names, names)
def test_names_are_only_ever_text(model, layer, reason):
    result = result_of(network(layer), row(f"{layer} of another kind", reason=reason), model=model, front=FRONT)
    read = Reader(page(result.to_json()))
    plain = Reader(
        page(result_of(network("a"), row("a of another kind", reason="c"), model="m", front=FRONT).to_json())
    )
    assert [tag for tag, _ in read.attributes] == [tag for tag, _ in plain.attributes]
    assert json.loads(read.by_id("report")) == json.loads(result.to_json())
    assert json.loads(read.by_id("recipe")) == result.recipe
    texts = {
        "".join(t for t, i in read.texts if i and i[-1][1].get("data-json") == p) for p in ("model", "rows/1/reason")
    }
    assert texts == {model, reason}


def test_three_hundred_layers_stay_small_enough_to_open():
    rows = [network(f"encoder/block_{k // 6}/part_{k % 6}", rank=4 + k % 90) for k in range(300)]
    result = result_of(*rows, front=FRONT)
    text = page(result.to_json())
    check(text, result)
    assert len(text.encode()) < 2_000_000
    assert text.count('class="tn"') == 90


falling = st.lists(st.floats(-12, 0).map(lambda power: 10.0**power) | st.just(0.0), min_size=2, max_size=9)


def points_of(text):
    """Of the one curve on a page in its first picture of that kind, and the mark on it."""
    curve = re.search(r'<polyline class="line[^"]*" points="([^"]*)"', text)[1]
    mark = re.search(r'<circle class="(?:chosen|cut[^"]*)" cx="([^"]*)" cy="([^"]*)"', text)
    return curve.split(" "), f"{mark[1]},{mark[2]}"


@settings(max_examples=60)
@given(falling, st.data())
def test_marks_lie_on_their_curves(values, data):
    """Also where the curve ends, or falls below what is drawn."""
    values = sorted(values, reverse=True)
    places = range(len(values))
    at = data.draw(st.sampled_from(places))
    front = Front("keep", "objective", tuple((1e3 * k, loss) for k, loss in enumerate(values)), (1e3 * at, values[at]))
    points, mark = points_of(charts.front({"front": json.loads(json.dumps(front.to_config()))}, "x", "y", "percent"))
    assert points[at] == mark
    found = result_of(network("a", rank=at + 1, spectrum=Spectrum(tuple(places), tuple(values))))
    points, mark = points_of(charts.spectra(json.loads(found.to_json()), "a", [0]))
    assert points[min(at + 1, len(values) - 1)] == mark


def test_what_was_chosen_is_in_sight():
    """However small its loss, it is not on the edge, where smaller ones lie."""
    front = replace(FRONT, points=((1e3, 2.0), (2e3, 1e-7), (3e3, 1e-9)), chosen=(2e3, 1e-7))
    (first, at, last), mark = points_of(charts.front({"front": front.to_config()}, "x", "y", "percent"))
    heights = [float(point.split(",")[1]) for point in (first, at, last)]
    assert at == mark
    assert heights == sorted(heights)
    assert heights[1] < heights[2]


def test_an_older_page_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    result, file = result_of(network("a")), tmp_path / "report.html"
    file.write_text("older")

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            result.save_html(file)
    assert file.read_text() == "older"
    assert result.save_html(str(file)) == file
    assert file.read_text(encoding="utf-8") == page(result.to_json())
    assert os.listdir(tmp_path) == ["report.html"]


def test_wrong_paths_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The folder .*nowhere does not exist; make it first"):
        result_of().save_html(tmp_path / "nowhere" / "report.html")
    with pytest.raises(IsADirectoryError, match=r"is a folder; give the name of a file"):
        result_of().save_html(tmp_path)


# -- in a browser -------------------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
]  # fmt: skip
MEASURE = """<script>
document.title = JSON.stringify({width: document.documentElement.scrollWidth, inner: innerWidth,
  svgs: [...document.querySelectorAll("svg")].filter(s => !s.closest("details")).every(
    s => s.getBoundingClientRect().width > 100),
  button: document.querySelectorAll("button").length});
</script></body>"""


def browse(folder, *flags):
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def everything():
    rows = [network(f"block_{k}/a_layer_with_a_long_name/dense", rank=k + 2) for k in range(6)]
    return result_of(*rows, row("head"), front=FRONT)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1400, 400])
def test_in_a_browser_it_fits_and_nothing_is_complained_of(everything, tmp_path, width):
    inner = tmp_path / "report.html"
    inner.write_text(page(everything.to_json()).replace("</body>", MEASURE), encoding="utf-8")
    # A frame may be narrower than the narrowest window.
    outer = tmp_path / "outer.html"
    frame = f'<iframe src="report.html" style="border:0" width="{width}" height="900"></iframe>'
    ask = "onload = () => { document.title = frames[0].document.title; }"
    outer.write_text(f"<!doctype html><title>x</title><body style='margin:0'>{frame}<script>{ask}</script>")
    shot = tmp_path / "shot.png"
    flags = ("--allow-file-access-from-files", f"--window-size={max(width, 500)},900")
    done = browse(tmp_path, *flags, "--dump-dom", f"file://{outer}")
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    found = json.loads(title)
    assert found == {"width": width, "inner": width, "svgs": True, "button": found["button"]}
    browse(tmp_path, *flags, f"--screenshot={shot}", f"file://{inner}")
    assert len(colours(shot.read_bytes())) > 8


def colours(png):
    """A few hundred different bytes triples of a PNG's unfiltered data: enough to tell that something is there."""
    assert png.startswith(b"\x89PNG")
    data, position = b"", 8
    while position < len(png):
        (length,), kind = struct.unpack(">I", png[position : position + 4]), png[position + 4 : position + 8]
        data += png[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        position += 12 + length
    return set(zlib.decompress(data)[::97])
