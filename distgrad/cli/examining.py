"""The verb that looks at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    run_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs would lie; it need not exist.")
    ] = Path("runs"),
    ray: Annotated[bool, typer.Option("--ray", help="Start Ray, too (takes a while).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> int:
    """Try what jobs need on this machine. It says what to do about what does not work.

    It computes, starts ranks by every launcher that is installed, writes and syncs a file. Exit
    code 3 where something that is installed does not work.
    """
    import dataclasses
    import json

    from distgrad import doctor

    findings = []
    for finding in doctor.examine(run_dir, ray=ray):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in findings], indent=1))
    else:
        print(doctor.summary(findings))
    return 3 if any(each.state == "failed" for each in findings) else 0
