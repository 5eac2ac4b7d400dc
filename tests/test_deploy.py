"""The examples in deploy/: checked by what would run them where that can be had, every command by our own parser."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from kinesis_nb.agents.maintenance import MaintenanceWindow
from kinesis_nb.cli import _parser

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "kinesis-nb"
MANIFEST = DEPLOY / "kubernetes" / "agents.yaml"
KUBERNETES = ("1.27", "1.37")  # the oldest that the chart takes, and the newest that there are schemas of
PROGRAM = "/opt/kinesis-nb/bin/kinesis-nb"


def read_manifests(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    named = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}
    assert len(named) == len(found)
    return named


def problems(manifests: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """Return what is wrong by the schemas of Kubernetes, which know every field, and by what points at what."""
    wrong: list[str] = []
    for version in KUBERNETES:
        for (kind, name), manifest in manifests.items():
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{version} {kind} {name}: {error.message}")
    return wrong + list(dangling(manifests))


def dangling(manifests: dict[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    """Yield what points at nothing: schemas cannot know."""
    pods = pods_of(manifests)
    labels = [pod["metadata"]["labels"] for pod in pods.values()]
    for (kind, name), manifest in manifests.items():
        spec = manifest.get("spec", {})
        selector = spec.get("selector", {})
        if selector and selector.get("matchLabels", selector) not in labels:
            yield f"{kind} {name} selects {selector}, and no pod has that"
        if kind == "StatefulSet" and ("Service", spec["serviceName"]) not in manifests:
            yield f"{kind} {name} has no service {spec['serviceName']}"
    for name, pod in pods.items():
        account = pod["spec"].get("serviceAccountName")
        if account and ("ServiceAccount", account) not in manifests:
            yield f"{name} has no service account {account}"
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        if any({mount["name"] for mount in one["volumeMounts"]} != volumes for one in pod["spec"]["containers"]):
            yield f"{name} mounts something else than {volumes}"


def pods_of(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    kinds = {"Deployment", "StatefulSet"}
    return {name: found["spec"]["template"] for (kind, name), found in manifests.items() if kind in kinds}


def check_commands(*commands: list[str]) -> list[str]:
    """Let our own parser take commands; return which ones these are."""
    parsed = [_parser().parse_args(command) for command in commands]
    for one in parsed:
        for text in getattr(one, "maintenance", []):
            MaintenanceWindow.parse(text)
    return sorted(one.run.__name__ for one in parsed)


def commands_of(manifests: dict[tuple[str, str], dict[str, Any]]) -> list[list[str]]:
    containers = [one for pod in pods_of(manifests).values() for one in pod["spec"]["containers"]]
    return [[*one["command"], *one["args"]][1:] for one in containers]


# --- Kubernetes


def test_kubernetes() -> None:
    """The manifests are what Kubernetes takes, and every command in them is one that this version takes."""
    manifests = read_manifests(MANIFEST.read_text())
    assert problems(manifests) == []
    assert check_commands(*commands_of(manifests)) == ["_agent", "_scheduler"]


@pytest.mark.parametrize(
    ("right", "broken", "says"),
    [
        ("replicas: 2", "replica: 2", "unexpected"),
        ("containerPort: 8786", "containerPort: dask", "is not of type 'integer'"),
        ("clusterIP: None", "clusterIp: None", "unexpected"),
        ("serviceName: kinesis-nb-agent", "serviceName: agents", "no service agents"),
        ("      app: kinesis-nb-scheduler\n  template", "      app: scheduler\n  template", "no pod has that"),
    ],
)
def test_a_broken_manifest_is_noticed(right: str, broken: str, says: str) -> None:
    """A misspelt field, a wrong type, and what points at nothing: each is found."""
    text = MANIFEST.read_text()
    assert right in text
    assert says in "\n".join(problems(read_manifests(text.replace(right, broken, 1))))


# --- Helm


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    local = ROOT / ".helm" / "helm"
    program = str(local) if local.exists() else shutil.which("helm")
    if program is None:
        pytest.skip("there is no helm; hint: run scripts/setup_helm.sh")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def rendered(chart: Path, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    done = helm("template", "kinesis-nb", chart, *arguments)
    assert done.returncode == 0, done.stderr
    return read_manifests(done.stdout)


def test_helm_chart() -> None:
    """The chart passes Helm's own strict lint, and with its own values it makes exactly the plain manifests."""
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rendered(CHART) == read_manifests(MANIFEST.read_text())


def test_helm_values() -> None:
    """Whatever is chosen arrives where it belongs, and what comes out is still what Kubernetes takes."""
    manifests = rendered(
        CHART,
        "--set-json=ttl=2.5",
        "--set=agents=7,lifetime=12h,stagger=5m,image=registry/kinesis-nb@sha256:00,tlsSecret=mine",
        "--set=serviceAccountAnnotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::123456789012:role/agents",
    )
    assert problems(manifests) == []
    agents = manifests["StatefulSet", "kinesis-nb-agent"]["spec"]
    pod = agents["template"]["spec"]
    [container] = pod["containers"]
    text = shlex.join([*container["command"], *container["args"]])
    assert "--ttl 2.5" in text
    assert "--lifetime 12h --stagger 5m" in text
    assert (agents["replicas"], container["image"]) == (7, "registry/kinesis-nb@sha256:00")
    assert pod["volumes"][0]["secret"]["secretName"] == "mine"
    account = manifests["ServiceAccount", pod["serviceAccountName"]]
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/agents"}
    assert check_commands(*commands_of(manifests)) == ["_agent", "_scheduler"]


@pytest.mark.parametrize("wrong", ["agent=3", "agents=0", "lifetime=48", "image="])
def test_helm_refuses_wrong_values(wrong: str) -> None:
    """A misspelt value and one that cannot be are refused, not passed over."""
    assert helm("lint", "--strict", CHART, f"--set={wrong}").returncode != 0


def test_a_broken_chart_is_noticed(tmp_path: Path) -> None:
    """Helm's lint stops at a value that is not there and at a template that is no YAML."""
    for right, broken in (
        ("{{ .Values.agents }}", "{{ .Values.agents"),
        ("spec:\n  clusterIP: None", "spec:\n clusterIP: None\n   x"),
    ):
        chart = tmp_path / "kinesis-nb"
        shutil.rmtree(chart, ignore_errors=True)
        shutil.copytree(CHART, chart)
        template = chart / "templates" / "agents.yaml"
        text = template.read_text()
        assert right in text
        template.write_text(text.replace(right, broken))
        assert helm("lint", "--strict", chart).returncode != 0


# --- systemd


def verify_units(folder: Path, change: tuple[str, str] = ("", "")) -> str:
    """Return what systemd finds wrong with the units; the program need not be installed for that."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze: a package systemd has it")
    copies = []
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text()
        assert f"ExecStart={PROGRAM} " in text
        copies.append(folder / unit.name)
        copies[-1].write_text(text.replace(PROGRAM, "/bin/true").replace(*change))
    command = [program, "verify", "--man=no", *map(str, copies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    about_ours = [line for line in done.stderr.splitlines() if "kinesis-nb" in line]
    return "\n".join(about_ours) or (done.stderr if done.returncode else "")


def test_systemd_units(tmp_path: Path) -> None:
    """systemd finds nothing wrong with the units, and their commands are ones that this version takes."""
    commands = []
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text().replace("\\\n", " ")
        [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
        line = line.partition("=")[2].replace("%i", "1").replace("${MAINTENANCE}", "Sun 03:00-03:05 UTC")
        commands.append(shlex.split(line)[1:])
    assert check_commands(*commands) == ["_agent", "_scheduler"]
    assert verify_units(tmp_path) == ""


@pytest.mark.parametrize(
    ("right", "broken"),
    [
        ("RestartSec=2", "RestartSeconds=2"),
        ("Restart=always", "Restart=ever"),
        ("ExecStart=/bin/true", "ExecStart=true/"),
        ("[Install]", "[Instal]"),
    ],
)
def test_a_broken_unit_is_noticed(tmp_path: Path, right: str, broken: str) -> None:
    """A misspelt key, value, section, and a program that is none: systemd tells each."""
    assert verify_units(tmp_path, (right, broken)) != ""
