"""Models by the Hugging Face hub: its real client against a server of our own, which keeps what it is given."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import scorefield as sf
import tiny
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.jobs import Pull, Push
from scorefield.jobs.card import without_front
from scorefield.run import shipped
from scorefield.run.loading import open_checkpoint

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install 'scorefield[hub]'")
NAME = "someone/digits"


class Hub:
    """What the server holds: of each repository its files, and the uploads that no commit has named yet."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.token = ""
        self.url = ""

    def commit_of(self, name: str) -> str:
        return sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_PUT(self) -> None:
            data = self.body()
            assert sha256(data).hexdigest() == self.path.rpartition("/")[2]
            hub.uploads[sha256(data).hexdigest()] = data
            self.answer({})

        def do_POST(self) -> None:
            data, path = self.body(), self.path.partition("?")[0]
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer({"error": "Invalid username or password."}, 401)
            elif path == "/api/validate-yaml":
                front = json.loads(data)["content"].split("---\n")[1]
                assert yaml.safe_load(front)["library_name"] == "scorefield"
                self.answer({"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                given = json.loads(data)
                name = f"{given['organization']}/{given['name']}"
                hub.repositories.setdefault(name, {})
                self.answer({"url": f"{hub.url}/{name}"})
            elif "/preupload/" in path:
                files = [one["path"] for one in json.loads(data)["files"]]
                modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
                self.answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
            elif path.endswith("/objects/batch"):
                objects = json.loads(data)["objects"]
                actions = [{**one, "actions": {"upload": {"href": f"{hub.url}/up/{one['oid']}"}}} for one in objects]
                self.answer({"transfer": "basic", "objects": actions})
            elif "/commit/" in path:
                name = path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in map(json.loads, data.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.repositories[name][value["path"]] = hub.uploads[value["oid"]]
                commit = hub.commit_of(name)
                self.answer({"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit})
            else:
                self.answer({}, 404)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            parts = path.removeprefix("/api/models").strip("/").split("/")
            files = hub.repositories.get("/".join(parts[:2]))
            if files is None:
                self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            name, commit = "/".join(parts[:2]), hub.commit_of("/".join(parts[:2]))
            if path.startswith("/api/models/"):
                siblings = [
                    {"rfilename": file, "size": len(data), "blobId": "0", **self.large(file, data)}
                    for file, data in files.items()
                ]
                self.answer({"id": name, "modelId": name, "sha": commit, "tags": [], "siblings": siblings})
            elif len(parts) > 4 and parts[2] == "resolve" and parts[4] in files:
                data = files[parts[4]]
                self.answer(data, headers={"X-Repo-Commit": commit, "ETag": f'"{sha256(data).hexdigest()}"'})
            else:
                self.answer(
                    {"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
                )

        do_HEAD = do_GET  # noqa: N815

        @staticmethod
        def large(file: str, data: bytes) -> dict[str, Any]:
            if not file.endswith(".safetensors"):
                return {}
            return {"lfs": {"size": len(data), "sha256": STATED.get(file, sha256(data).hexdigest()), "pointerSize": 1}}

    return Handler


STATED: dict[str, str] = {}  # digests that the server states wrongly


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found))
    found.url, found.token = f"http://127.0.0.1:{server.server_address[1]}", "hf_of_a_test"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {
        "HF_ENDPOINT": found.url,
        "HF_TOKEN": found.token,
        "SCOREFIELD_MODELS": str(tmp_path / "pulled"),
        "HF_HOME": str(tmp_path / "hf"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_DISABLE_XET", True
    )  # a protocol of its own, which the server lacks
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
    STATED.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    tiny.train(folder, folder / "run", train__steps=2, train__validate_every=0, train__preview_every=0)
    return folder / "run"


def test_what_is_pushed_and_pulled_is_the_run(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By the command line, as a RUN of other verbs."""
    figures = {"fréchet": {"mean": 1.25, "std": 0.5}, "kernel": {"mean": 0.01, "std": None}}
    (run / "metrics.json").write_text(json.dumps({"figures": figures, "n": 100, "seeds": [0], "model": {"step": 2}}))
    try:
        assert main(["push", str(run), NAME, "--licence", "apache-2.0"]) == 0
    finally:
        (run / "metrics.json").unlink()
    pushed = hub.repositories[NAME]
    assert set(pushed) == {"model.safetensors", "README.md"}  # and nothing else
    card = pushed["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "apache-2.0"
    for words in (
        "## Intended use",
        "To be filled in",
        "| fréchet | 1.25 | 0.5 |",
        "seed 0",
        "`Digits`",
        "Made with scorefield",
    ):
        assert words in card, words
    warned = capsys.readouterr().err
    assert "Intended use, Limits" in warned and "Licence" not in warned

    assert main(["pull", NAME]) == 0 and "is a RUN now" in capsys.readouterr().out
    before, after = sf.load(run), sf.load(NAME)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.7])
    assert torch.equal(after.denoise(x, t), before.denoise(x, t))
    assert main(["sample", NAME, "-n", "2", "--out", "drawn"]) == 0
    assert np.load("drawn/samples.npy").shape == (2, 1, 8, 8)
    capsys.readouterr()
    assert main(["models"]) == 0 and NAME in capsys.readouterr().out
    assert main(["models", NAME]) == 0 and capsys.readouterr().out.startswith(f"# {NAME}: fields of 1×8×8")
    assert {path.name for path in shipped.place_of(NAME).iterdir()} == {
        *("model.safetensors", "config.yaml", "card.md", "origin.json")
    }
    assert not any("optimiser" in name for name in open_checkpoint(Path(NAME)).checkpoint.tensors)
    assert str(run.parent) not in json.dumps(open_checkpoint(Path(NAME)).checkpoint.facts)  # paths of this machine


def test_it_is_replaced_only_where_that_is_said(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Push(run=run, name=NAME).run()
    first = Pull(name=NAME).run()
    card = Path("mine.md")
    card.write_text("---\nlibrary_name: scorefield\n---\n\n# someone/digits: mine\n\nMy words.\n")
    Push(run=run, name=NAME, card=card).run()
    with pytest.raises(InputError, match="--replace"):
        Pull(name=NAME).run()
    second = Pull(name=NAME, replace=True).run()
    assert second["commit"] != first["commit"] and second["weights"] == first["weights"]
    assert (shipped.place_of(NAME) / "card.md").read_text() == "# someone/digits: mine\n\nMy words.\n"
    assert [path.name for path in shipped.place_of(NAME).parent.iterdir()] == ["digits"]
    with pytest.raises(InputError, match=r"Cannot pull .*"):
        Pull(name="someone/else").run()


@pytest.mark.parametrize("how", ["a byte", "the hub's digest", "no weights", "foreign code"])
def test_what_is_not_the_model_is_refused_and_leaves_nothing(how: str, hub: Hub, run: Path, tmp_path: Path) -> None:
    Push(run=run, name=NAME).run()
    files = hub.repositories[NAME]
    if how == "a byte":
        data = bytearray(files["model.safetensors"])
        data[-1] ^= 1
        files["model.safetensors"] = bytes(data)
    elif how == "the hub's digest":
        STATED["model.safetensors"] = "0" * 64
    elif how == "no weights":
        del files["model.safetensors"]
        files["model.pth"] = b"pickle"
    else:
        checkpoint = open_checkpoint(run).checkpoint
        tensors, facts = shipped.packed(checkpoint, low=False)
        facts["config"]["model"]["net"] = {
            "class_path": "os.system",
            "init_args": {"command": f"touch {tmp_path}/executed"},
        }
        shipped.checkpoints.write(tmp_path / "bad.safetensors", tensors, facts)
        files["model.safetensors"] = (tmp_path / "bad.safetensors").read_bytes()
    words = {
        "a byte": "corrupt",
        "the hub's digest": "digest",
        "no weights": "no model of scorefield",
        "foreign code": "os",
    }
    with pytest.raises(InputError, match=words[how]):
        Pull(name=NAME).run()
    assert not shipped.place_of(NAME).exists() and not (tmp_path / "executed").exists()


def test_without_an_account_it_is_one_line(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(run), NAME]) == 2
    said = capsys.readouterr().err
    assert "hf auth" in said and said.count("\n") == 1 and not hub.repositories


@pytest.mark.parametrize("name", ["digits", "../x/y", "a/../b", "a/b/c", "-a/b", "/a/b", "a/", "a b/c"])
def test_what_is_no_name_is_refused(name: str, run: Path) -> None:
    with pytest.raises(InputError, match="OWNER/MODEL"):
        Pull(name=name)
    with pytest.raises(InputError, match="OWNER/MODEL"):
        Push(run=run, name=name)


def test_the_lines_in_front_of_a_card_are_taken_off() -> None:
    assert without_front("---\na: 1\n---\n\n# A\n\n---\nb\n") == "# A\n\n---\nb\n"
    assert without_front("# A\n") == "# A\n" and without_front("---\nno end") == "---\nno end"
