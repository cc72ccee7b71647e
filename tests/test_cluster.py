"""The scripts of launch/ and the templates of cluster/: they parse, and name only what there is."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from distgrad.cli import app
from distgrad.testing.process import wait_until

ROOT = Path(__file__).parents[1]
CLUSTER, LAUNCH = ROOT / "cluster", ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *CLUSTER.glob("*.sbatch")])
TEXTS = sorted(path for folder in (CLUSTER, LAUNCH) for path in folder.iterdir() if path.is_file())


def load(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((CLUSTER / name).read_text())


def by_name(paths: list[Path]) -> dict[str, Any]:
    return {"argvalues": paths, "ids": [path.name for path in paths]}


@pytest.mark.parametrize("path", **by_name(SCRIPTS))
def test_scripts_are_shell(path: Path) -> None:
    shells = ["bash"] if path.read_text().startswith("#!/bin/bash") else ["sh", "bash"]
    for shell in shells:
        done = subprocess.run([shell, "-n", path], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr


NEEDS_A_JOB = [p for p in SCRIPTS if p.name not in ("_env.sh", "quickstart.sh", "test.sh")]


@pytest.mark.parametrize("path", **by_name(NEEDS_A_JOB))
def test_scripts_without_arguments_say_how(path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(ROOT)}
    done = subprocess.run(["bash", path], capture_output=True, text=True, timeout=20, env=env)
    assert done.returncode == 2
    assert "usage" in done.stderr and "JOB.yaml" in done.stderr


def fake(folder: Path, name: str, body: str = "") -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + (body or f'echo {name} "$@"') + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ray.sh", "4", "job.yaml", "a.b=1"], "distgrad train -n 4 --launcher ray job.yaml a.b=1"),
        (["mpirun.sh", "4", "job.yaml", "--x"], "mpirun -n 4 distgrad train job.yaml --x"),
        (["slurm.sh", "srun", "job.yaml", "--x"], "srun distgrad train job.yaml --x"),
        (["slurm.sh", "mpirun", "job.yaml"], "mpirun -n 6 distgrad train job.yaml"),
        (["slurm.sh", "ray", "job.yaml"], "distgrad train -n 6 --launcher ray job.yaml"),
        (
            ["ray_submit.sh", "http://head:8265", "4", "job.yaml", "--x"],
            "ray job submit --address http://head:8265 --working-dir . -- "
            "python -m distgrad train -n 4 --launcher ray job.yaml --x",
        ),
    ],
)
def test_scripts_hand_everything_on(tmp_path: Path, words: list[str], expected: str) -> None:
    """Run for real, among programs that print how they are called."""
    for name in ("ray", "srun", "mpirun", "distgrad"):
        fake(tmp_path, name)
    fake(tmp_path, "scontrol", "echo host1; echo host2")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "6"}
    env |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "host[1-2]"}
    script, *rest = words
    command = ["sh", LAUNCH / script, *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected


def test_srun_over_tcp_gives_the_ranks_a_place_and_a_secret(tmp_path: Path) -> None:
    fake(tmp_path, "srun", 'echo "$DISTGRAD_ADDRESS $DISTGRAD_TOKEN" "$@"')
    fake(tmp_path, "scontrol", "echo host1; echo host2")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "x"}
    command = ["sh", LAUNCH / "slurm.sh", "tcp", "job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env)
    assert re.fullmatch(r"host1:20077 [0-9a-f]{32} distgrad train job.yaml\n", done.stdout)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (6, False)])
def test_a_preempted_slurm_job_is_queued_again(tmp_path: Path, code: int, requeued: bool) -> None:
    """SIGUSR1 to the batch shell reaches the ranks, and their 75 brings the job back."""
    rank = f"trap 'exit {code}' USR1; touch ready; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done"
    fake(tmp_path, "srun", rank)
    fake(tmp_path, "scontrol", 'echo scontrol "$@"')
    (tmp_path / "launch").symlink_to(LAUNCH)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "6"}
    env["SLURM_SUBMIT_DIR"] = str(tmp_path)
    command = ["bash", CLUSTER / "slurm.sbatch", "job.yaml"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as batch:
        try:
            wait_until((tmp_path / "ready").exists, 10, "the fake rank")
            batch.send_signal(10)
            out, _ = batch.communicate(timeout=20)
        finally:
            batch.kill()
    assert batch.returncode == code
    assert ("scontrol requeue 77" in out) is requeued


def test_slurm_settings() -> None:
    text = (CLUSTER / "slurm.sbatch").read_text()
    assert "#SBATCH --signal=B:USR1@120\n" in text and "#SBATCH --requeue\n" in text
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    first = next(n for n, line in enumerate(text.splitlines()) if line and line[0] != "#")
    last = max(n for n, line in enumerate(text.splitlines()) if line in directives)
    assert last < first  # sbatch reads none after the first command


# The command line.


def options(command: str) -> set[str]:
    root: Any = typer.main.get_command(app)
    return {word for option in root.commands[command].params for word in option.opts}


@pytest.mark.parametrize("path", **by_name(TEXTS))
def test_commands_and_options_exist(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    if path.name == "mpijob.yaml":
        text = shlex.join(mpi_command())
    for line in text.replace("\n    --", " --").splitlines():
        for verb, rest in re.findall(r"distgrad (train|launch|evaluate|bench)\b(.*)", line):
            known = options(verb)
            for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest.split(" #")[0]):
                assert option in known, f"{path.name}: distgrad {verb} has no {option}"
    for job in re.findall(r"configs/\S+\.yaml", text):
        assert (ROOT / job).is_file(), f"{path.name} names {job}"
    for named in re.findall(r"(?:^|[ `])((?:launch|cluster)/[\w.]+\w)", text):
        assert (ROOT / named).is_file(), f"{path.name} names {named}"


# The templates. The fields are those of the published schemas: ray.io/v1 RayJob of KubeRay
# (rayjob_types.go, raycluster_types.go) and kubeflow.org/v2beta1 MPIJob of mpi-operator.

RAYJOB = {
    *("entrypoint", "runtimeEnvYAML", "submissionMode", "shutdownAfterJobFinishes"),
    *("ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "suspend"),
    *("rayClusterSpec", "clusterSelector", "metadata", "jobId", "entrypointNumCpus"),
    *("entrypointNumGpus", "entrypointResources", "submitterPodTemplate", "submitterConfig"),
}
WORKER_GROUP = {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts"),
    *("rayStartParams", "template"),
}
MPIJOB = {
    *("slotsPerWorker", "runPolicy", "mpiReplicaSpecs", "sshAuthMountPath", "mpiImplementation"),
    *("launcherCreationPolicy", "runLauncherAsWorker"),
}
RUN_POLICY = {
    *("cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit"),
    *("suspend", "schedulingPolicy", "managedBy"),
}


def pod(template: dict[str, Any]) -> dict[str, Any]:
    """The one container of a pod; its volumes are there."""
    [container] = template["spec"]["containers"]
    assert {"name", "image", "resources"} <= set(container)
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounted <= {volume["name"] for volume in template["spec"].get("volumes", [])}
    return container


def test_rayjob() -> None:
    job = load("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z][-a-z0-9]*", job["metadata"]["name"])
    spec = job["spec"]
    assert set(spec) <= RAYJOB
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    assert spec["shutdownAfterJobFinishes"]  # ttlSecondsAfterFinished needs it
    assert "env_vars" in YAML(typ="safe", pure=True).load(spec["runtimeEnvYAML"])
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert {"rayStartParams", "template"} == set(cluster["headGroupSpec"])
    groups = cluster["workerGroupSpecs"]
    assert all({"groupName", "template"} <= set(group) <= WORKER_GROUP for group in groups)
    parameters = [g["rayStartParams"] for g in (cluster["headGroupSpec"], *groups)]
    assert all(isinstance(v, str) for given in parameters for v in given.values())
    head = pod(cluster["headGroupSpec"]["template"])
    assert {port["containerPort"] for port in head["ports"]} == {6379, 8265, 10001}
    cpus = [int(pod(group["template"])["resources"]["limits"]["cpu"]) for group in groups]
    room = sum(g["replicas"] * each for g, each in zip(groups, cpus, strict=True))
    words = shlex.split(spec["entrypoint"])
    assert int(words[words.index("-n") + 1]) <= room
    assert words[words.index("--launcher") + 1] == "ray"
    wanted = re.search(r"ray\[default,train\]>=([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    version = tuple(map(int, cluster["rayVersion"].split(".")))
    assert version >= tuple(map(int, wanted[1].split(".")))


def mpi_command() -> list[str]:
    launcher = load("mpijob.yaml")["spec"]["mpiReplicaSpecs"]["Launcher"]
    container = pod(launcher["template"])
    return [*container["command"], *container["args"]]


def test_mpijob() -> None:
    job = load("mpijob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    spec = job["spec"]
    assert {"mpiReplicaSpecs", "mpiImplementation"} <= set(spec) <= MPIJOB
    assert spec["mpiImplementation"] in {"OpenMPI", "Intel", "MPICH"}
    assert spec["launcherCreationPolicy"] in {"AtStartup", "WaitForWorkersReady"}
    assert set(spec["runPolicy"]) <= RUN_POLICY
    assert spec["runPolicy"]["cleanPodPolicy"] in {"None", "Running", "All"}
    replicas = spec["mpiReplicaSpecs"]
    assert set(replicas) == {"Launcher", "Worker"}
    assert all(set(r) <= {"replicas", "template", "restartPolicy"} for r in replicas.values())
    assert replicas["Launcher"]["replicas"] == 1
    words = mpi_command()
    slots = spec["slotsPerWorker"] * replicas["Worker"]["replicas"]
    assert words[:2] == ["mpirun", "-n"] and int(words[2]) == slots
    worker = pod(replicas["Worker"]["template"])
    assert worker["command"][0] == "/usr/sbin/sshd"
    docker = (CLUSTER / "Dockerfile").read_text()
    assert f"cluster/sshd_config {worker['command'][-1]}" in docker
    port = worker["readinessProbe"]["tcpSocket"]["port"]
    assert f"Port {port}\n" in (CLUSTER / "sshd_config").read_text() and f"Port {port}" in docker
    users = [pod(r["template"])["securityContext"]["runAsUser"] for r in replicas.values()]
    assert users == [1000, 1000] and "--uid 1000" in docker


@pytest.mark.parametrize("name", ["ray_aws.yaml", "ray_onprem.yaml"])
def test_ray_accepts_its_cluster_file(name: str) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'distgrad[ray]'")
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(name)
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="initial_workers"):  # it does look
        validate_config(prepare_config({**load(name), "initial_workers": 1}))


DOCKER = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD", "ENV", "EXPOSE", "ENTRYPOINT"}


def test_dockerfile() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.strip()]
    assert all(len(words) == 2 and words[0] in DOCKER for words in found), found
    kinds = [words[0] for words in found]
    assert kinds.index("ARG") < kinds.index("FROM")
    for kind, rest in found:
        if kind == "RUN":
            done = subprocess.run(["sh", "-n", "-c", rest], capture_output=True, timeout=20)
            assert done.returncode == 0, rest
        if kind == "COPY":
            sources = [word for word in rest.split()[:-1] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), rest
    extras = set(re.findall(r"EXTRAS=([\w,]+)", text))
    known = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert extras and all(set(each.split(",")) <= set(known) for each in extras)
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {"BASE", "EXTRAS"}


def test_readme_names_every_template() -> None:
    text = (CLUSTER / "README.md").read_text()
    inner = {"README.md", "sshd_config"}
    assert all(f"cluster/{p.name}" in text or p.name in inner for p in CLUSTER.iterdir())
