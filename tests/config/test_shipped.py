"""The jobs that come with distgrad, by name: trained, listed, and written as a start."""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import urlparse

import pytest

from distgrad import cli
from distgrad.config import load, shipped

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_are_found_from_any_folder_and_shipped_from_one_place() -> None:
    assert list(shipped.jobs()) == NAMES and "digits" in NAMES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"configs": "distgrad/configs"}
    assert not (ROOT / "distgrad" / "configs").exists()  # no second copy


def test_those_of_an_installed_package_lie_in_it(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_PACKAGE", elsewhere / "distgrad")
    inside = elsewhere / "distgrad" / "configs"
    inside.mkdir(parents=True)
    (inside / "one.yaml").touch()
    assert shipped.jobs() == {"one": inside / "one.yaml"}


def test_ls_says_what_each_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "ls"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == NAMES
    assert "tumours" in lines["breast_cancer"] and "schema" not in "".join(lines.values())


def test_a_name_stands_for_its_file(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "digits", "--dry-run", "seed=3"]) == 0
    assert "digits-mlp, seed 3" in capsys.readouterr().out
    (elsewhere / "digits").write_text("name: mine\n")  # a file of that name comes first
    assert cli.main(["train", "digits", "--dry-run"]) == 2
    assert "digits:" in capsys.readouterr().err


def test_a_name_that_is_wrong_is_answered_by_the_right_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "digts"]) == 2
    assert "did you mean digits?" in capsys.readouterr().err
    assert cli.main(["train", "unheard.yaml"]) == 2
    assert "distgrad has breast_cancer, digits" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_init_writes_a_job_that_loads(
    name: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "init", "mine.yaml", "--from", name]) == 0
    assert "distgrad train mine.yaml" in capsys.readouterr().out
    assert load("mine.yaml") == load(shipped.jobs()[name])
    first = (elsewhere / "mine.yaml").read_text().splitlines()[0]
    assert Path(urlparse(first.partition("$schema=")[2]).path).samefile(
        ROOT / "configs" / "schema.json"
    )


def test_init_replaces_nothing(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "init"]) == 0
    (elsewhere / "job.yaml").write_text("precious")
    assert cli.main(["config", "init"]) == 2
    assert "job.yaml exists" in capsys.readouterr().err
    assert (elsewhere / "job.yaml").read_text() == "precious"
    assert cli.main(["config", "init", "no/where.yaml"]) == 2
    assert cli.main(["config", "init", "b.yaml", "--from", "nothing"]) == 2
    assert "no such job; there are breast_cancer" in capsys.readouterr().err
