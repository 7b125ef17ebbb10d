"""Objects given away through the official client, to a small server that answers as Kubernetes does and checks them."""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.again import Asked
from pipeline.errors import ConfigError, LeaseHeld
from pipeline.kuberay.applying import Given, KubernetesError, apply_object, create_job
from pipeline.kuberay.objects import Versions, Work, ray_cron_job, ray_job
from pipeline.kuberay.settings import KubernetesSettings
from tests.pipeline.kuberay.crds import folder, problems

WORK = Work(words=("render",), gpus=2, versions=Versions(happyhorse="0.1.0", ray="2.60.0"))
JOB = ray_job(KubernetesSettings(), WORK, name="happyhorse-x")
CRON = ray_cron_job(KubernetesSettings(), WORK, name="happyhorse-n", schedule="0 22 * * *", timezone="UTC")
ASKED = Asked(name="happyhorse-x", mark="a table", left=0)
ROOM = "/apis/ray.io/v1/namespaces/default"


@dataclass
class Kubernetes:
    """What was kept, by path; `refusal`: the status that every request gets."""

    objects: dict[str, Any] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    refusal: tuple[int, str] | None = None
    port: int = 0


def handler_of(state: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            body = self._body()
            key = f"{path}/{body['metadata']['name']}"
            found = problems(body)
            if state.refusal:
                self._say(*state.refusal)
            elif key in state.objects:
                self._say(409, "AlreadyExists")
            elif found or "fieldValidation=Strict" not in query:
                self._say(422, f"Invalid: {found}")
            else:
                state.objects[key] = body
                self._answer(201, body)

        def do_GET(self) -> None:
            found = state.objects.get(self.path.partition("?")[0])
            if found is None or state.refusal:
                self._say(*(state.refusal or (404, "NotFound")))
            else:
                self._answer(200, found)

        def do_PATCH(self) -> None:
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            state.objects[self.path.partition("?")[0]].update(self._body())
            self._answer(200, {})

        def _body(self) -> Any:
            state.tokens.add(self.headers["Authorization"])
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def _say(self, status: int, message: str) -> None:
            self._answer(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    return Handler


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """With a kubeconfig that leads to it. Skips where there are no schemas for it to check with."""
    folder()
    state = Kubernetes()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    state.port = http.server_address[1]
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, state.port)))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    http.shutdown()
    http.server_close()


def write_kubeconfig(folder: Path, port: int) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "sesame"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return folder / "kubeconfig"


def test_a_job_is_created_once(server: Kubernetes) -> None:
    assert create_job(JOB, ASKED) == Given(name="happyhorse-x", how="created")
    (kept,) = server.objects.values()
    assert kept["spec"] == JOB["spec"]
    assert kept["metadata"] == JOB["metadata"] | {"annotations": {"happyhorse/asked": "a table"}}
    assert create_job(JOB, ASKED) == Given(name="happyhorse-x", how="there", status="new")
    assert [*server.objects] == [f"{ROOM}/rayjobs/happyhorse-x"]
    assert server.tokens == {"Bearer sesame"}


@pytest.mark.parametrize(
    ("status", "asked", "how", "name"),
    [
        (("Running", "RUNNING"), ASKED, "there", "happyhorse-x"),
        (("Retrying", "FAILED"), ASKED, "there", "happyhorse-x"),  # in a new cluster
        (("Complete", "SUCCEEDED"), ASKED, "there", "happyhorse-x"),
        (("Complete", "SUCCEEDED"), replace(ASKED, left=2), "created", "happyhorse-x-2"),  # clips failed
        (("Complete", "SUCCEEDED"), replace(ASKED, mark="another table"), "created", "happyhorse-x-2"),
        (("Failed", "FAILED"), ASKED, "created", "happyhorse-x-2"),
    ],
)
def test_what_follows_a_job_of_the_same_day(
    server: Kubernetes, status: tuple[str, str], asked: Asked, how: str, name: str
) -> None:
    create_job(JOB, ASKED)
    kept = server.objects[f"{ROOM}/rayjobs/happyhorse-x"]
    kept["status"] = dict(zip(("jobDeploymentStatus", "jobStatus"), status, strict=True))
    given = create_job(JOB, asked)
    assert (given.how, given.name) == (how, name)
    assert f"{ROOM}/rayjobs/{name}" in server.objects


def test_another_table_waits_for_the_job_that_is_at_work(server: Kubernetes) -> None:
    create_job(JOB, ASKED)
    with pytest.raises(LeaseHeld, match=r"job happyhorse-x is at work \(new\) with another table or other settings"):
        create_job(JOB, replace(ASKED, mark="another table"))
    assert len(server.objects) == 1


def test_a_cron_job_is_brought_up_to_date(server: Kubernetes) -> None:
    assert apply_object(CRON).how == "created"
    later = {**CRON, "spec": {**CRON["spec"], "schedule": "30 23 * * *"}}
    assert apply_object(later) == Given(name="happyhorse-n", how="updated")
    assert server.objects[f"{ROOM}/raycronjobs/happyhorse-n"]["spec"]["schedule"] == "30 23 * * *"


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((403, "you may not"), "Kubernetes refuses RayJob default/happyhorse-x: 403 Forbidden: .*you may not"),
        ((404, "page not found"), "it knows no such objects .is the KubeRay operator installed"),
        ((422, "spec.oops"), "422 .*spec.oops"),
    ],
)
def test_what_kubernetes_refuses_is_one_line(server: Kubernetes, refusal: tuple[int, str], said: str) -> None:
    server.refusal = refusal
    with pytest.raises(KubernetesError, match=said) as caught:
        create_job(JOB, ASKED)
    assert "\n" not in str(caught.value)


def test_a_field_that_it_does_not_know_is_refused_and_not_dropped(server: Kubernetes) -> None:
    with pytest.raises(KubernetesError, match="422"):
        create_job({**JOB, "spec": {**JOB["spec"], "backofLimit": 2}}, ASKED)


def test_a_cluster_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, 9)))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(KubernetesError, match="Kubernetes cannot be reached"):
        create_job(JOB, ASKED)


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match=r"no kubeconfig to reach Kubernetes with: .*; dry_run=true prints"):
        create_job(JOB, ASKED)


def test_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ConfigError, match=r"pip install 'happyhorse\[kubernetes\]'"):
        create_job(JOB, ASKED)
