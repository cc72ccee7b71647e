"""The page of runs: whole by itself, true to the folder, and alive while a run is."""

from __future__ import annotations

import itertools
import os
import platform
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from distgrad.core.errors import UsageError
from distgrad.report.run import Run

from . import folders

pytest.importorskip("matplotlib")

from distgrad.report import page, plots

_VOID = {"meta", "br", "link", "img"}


class Checker(HTMLParser):
    """Notes what a page refers to, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_needs_nothing_beside_itself(tmp_path: Path) -> None:
    text = page.page([Run(folders.make(tmp_path / name)) for name in ("one", "two")])
    found = Checker(text)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids)) > 50, "the charts share no names"
    assert found.references and all(each.startswith("#") for each in found.references)
    assert {each[1:] for each in found.references} <= set(found.ids)
    assert not re.search(r"https?://|<script|<link|<img|@import", text)


def test_what_one_run_shows(tmp_path: Path) -> None:
    text = page.page([Run(folders.make(tmp_path / "one"))])
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert titles == [
        *("Loss", "Accuracy", "Learning rate", "Throughput", "Time per step"),
        "Where the time goes",
    ]
    for words in ("one", "done", "test accuracy", "0.9000", "abababab", "640", "units: 8", "2.4"):
        assert words in text
    assert "distgrad train small.yaml &lt;&amp;&gt;" in text, "escaped"
    assert "http-equiv" not in text
    assert "Settings that differ" not in text


def test_a_run_that_goes_on_loads_itself_again(tmp_path: Path) -> None:
    alive = {"pid": os.getpid(), "host": platform.node(), "heartbeat": folders.now()}
    path = folders.make(tmp_path / "one", state="running", exit_code=None, **alive)
    assert '<meta http-equiv="refresh" content="5">' in page.page([Run(path)])


def test_several_runs_are_drawn_over_each_other(tmp_path: Path) -> None:
    runs = [Run(folders.make(tmp_path / "one")), Run(folders.make(tmp_path / "two", units=99))]
    text = page.page(runs)
    assert re.search(r"<th>model\.layers\.0\.units</th><td>8</td><td>99</td>", text)
    for colour in plots.COLOURS[:2]:
        loss = text[text.index("<figcaption>Loss") : text.index("<figcaption>Accuracy")]
        assert colour.lower() in loss.lower()


def test_a_run_without_a_step_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("name: x\n")
    run = Run(tmp_path)
    assert plots.charts([run]) == []
    assert "<h2>Curves" not in page.page([run])


def test_the_mean_line_goes_through_the_values(tmp_path: Path) -> None:
    """The path of a chart, back in the numbers of its axes."""
    run = Run(folders.make(tmp_path / "one", steps=8, epochs=4))
    charts = {chart.title: chart.svg for chart in plots.charts([run])}
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    tree = ElementTree.fromstring(charts["Accuracy"].replace("<svg", head, 1))
    lines = [
        [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        for path in (element.get("d", "") for element in tree.iter() if "d" in element.attrib)
        if path.count("L") == 3
    ]
    (curve,) = [line for line in lines if len({y for _, y in line}) == 4]
    steps = [(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in itertools.pairwise(curve)]
    assert all(step == pytest.approx(steps[0], abs=1e-4) for step in steps), "0.25 more each epoch"


def test_ten_thousand_points_are_a_curve_of_hundreds(tmp_path: Path) -> None:
    run = Run(folders.make(tmp_path / "one", steps=10_000))
    loss = plots.charts([run])[0].svg
    assert len(loss) < 150_000


def test_phases(tmp_path: Path) -> None:
    run = Run(folders.make(tmp_path / "one"))
    assert plots.phases(run) == pytest.approx({"compute": 70, "communication": 20, "data": 10})
    alone = Run(folders.make(tmp_path / "two", world_size=1))
    assert plots.phases(alone) == pytest.approx({"compute": 90, "data": 10})


def test_a_page_is_written_over_a_page_alone(tmp_path: Path) -> None:
    run, path = Run(folders.make(tmp_path / "run")), tmp_path / "page.html"
    page.write([run], path)
    page.write([run], path)
    path.write_text("<html>my own</html>")
    with pytest.raises(UsageError, match="is not a page of ours"):
        page.write([run], path)
    assert path.read_text() == "<html>my own</html>"
    with pytest.raises(UsageError, match="is a folder"):
        page.write([run], tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        page.write([run], tmp_path / "none" / "page.html")
