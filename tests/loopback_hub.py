"""A loopback Hugging Face Hub, small enough to read, for tests of push and pull with the real client.

It speaks the routes that huggingface_hub 2.4 calls for create_repo, create_branch, create_commit, repo_info,
add_space_variable, list_repo_tree and hf_hub_download, and those that its file system calls for `datasets`. It keeps
everything under one folder, and listens on 127.0.0.1 only.

Bytes arrive in three ways, as on the Hub:
  regular  base64 in the commit's lines of JSON (small text files)
  lfs      a git-LFS batch and a PUT (the client without hf_xet, or with HF_HUB_DISABLE_XET=1)
  xet      the client's own hf_xet against a folder, LoopbackHub(..., xet=True). This depends on an undocumented scheme
           (`local://`) and file layout of hf_xet: when it breaks with a new hf_xet, the lfs way still tests our calls.

    with LoopbackHub(tmp_path, xet=True) as hub:
        api = HfApi(endpoint=hub.url, token="hf_test")  # or HF_ENDPOINT and HF_TOKEN in a child process
        ...
        print(hub.requests)  # [(method, path and query, status), ...]

A FaultyLine(hub) stands in between, and lets something happen to one request, or to all from one on.

It proves our calls, not the Hub's own rules (quotas, names, scanners).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SINGULAR = {"models": "model", "datasets": "dataset", "spaces": "space"}


class RepositoryTypeConvertor(StringConvertor):
    """Lets a route tell /spaces/user/name from /user/name."""

    regex = "|".join(SINGULAR)


register_url_convertor("repository_type", RepositoryTypeConvertor())


@dataclass(frozen=True)
class StoredFile:
    """One file of one commit; its bytes lie in blobs/<sha256>, or in the xet folder."""

    oid: str  # what git calls it: the SHA-1 of the file, or of its LFS pointer
    sha256: str
    size: int
    lfs: bool = False
    xet: str | None = None


@dataclass(frozen=True)
class Commit:
    """A commit: its files by path."""

    oid: str
    title: str
    files: dict[str, StoredFile] = field(default_factory=dict)


@dataclass
class Repository:
    """A repository: its commits, oldest first, and what its branches, tags and pull requests point to."""

    name: str
    kind: str
    private: bool
    sdk: str | None
    commits: list[Commit]
    references: dict[str, str]
    gated: bool = False
    variables: dict[str, str] = field(default_factory=dict)  # of a Space

    def commit_at(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, a pull request or a commit's own id names."""
        oid = self.references.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    @property
    def head(self) -> Commit:
        """The commit that main points to."""
        commit = self.commit_at("main")
        assert commit is not None
        return commit


class LoopbackHub:
    """A Hub on a free port of 127.0.0.1 while its `with` block lasts."""

    def __init__(
        self,
        root: Path,
        *,
        tokens: tuple[str, ...] = ("hf_test",),
        user: str = "tester",
        xet: bool = False,
        lfs_threshold: int = 5_000_000,
    ) -> None:
        """Keeps everything under `root`; `xet` lets large files arrive by hf_xet."""
        self.tokens = tokens
        self.user = user
        self.lfs_threshold = lfs_threshold
        self.url = ""
        self.app = Starlette(routes=self._routes(), middleware=[Middleware(_Recorded, hub=self)])
        self.start_anew(root, xet=xet)

    def start_anew(self, root: Path, *, xet: bool = False) -> None:
        """An empty Hub under another `root`, at once, where another server would take a fifth of a second to stop."""
        self.blobs = root / "blobs"
        self.chunks = root / "xet"
        self.blobs.mkdir(parents=True)
        self.xet = xet
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.fault: int | None = None  # a status that every request is answered with, to test a Hub in trouble
        self.broken: int | None = None  # the only request that a fault is for, counted from 0
        self.answer_lost = False  # whether what a broken request asks for is done all the same

    def _routes(self) -> list[Route]:
        api, repository = "/api/{type:repository_type}/{namespace}/{name}", "{namespace}/{name}"
        return [
            Route("/api/whoami-v2", self.whoami),
            Route("/api/agent-harnesses", self.agent_harnesses),
            Route("/api/validate-yaml", self.validate_yaml, methods=["POST"]),
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route(api, self.info),
            Route(f"{api}/revision/{{revision:path}}", self.info),
            Route(f"{api}/auth-check", self.auth_check),
            Route(f"{api}/tree/{{revision}}", self.tree),
            Route(f"{api}/tree/{{revision}}/{{path:path}}", self.tree),
            Route(f"{api}/paths-info/{{revision}}", self.paths_info, methods=["POST"]),
            Route(f"{api}/variables", self.variables, methods=["GET", "POST"]),
            Route(f"{api}/branch/{{branch:path}}", self.branch, methods=["POST"]),
            Route(f"{api}/preupload/{{revision:path}}", self.preupload, methods=["POST"]),
            Route(f"{api}/commit/{{revision:path}}", self.commit, methods=["POST"]),
            Route(f"{api}/xet-{{right}}-token/{{revision:path}}", self.xet_token),
            Route("/_lfs/{oid}", self.lfs_put, methods=["PUT"]),
            Route("/_lfs/{oid}/verify", self.lfs_verify, methods=["POST"]),
            Route(f"/{repository}.git/info/lfs/objects/batch", self.lfs_batch, methods=["POST"]),
            Route(
                f"/{{type:repository_type}}/{repository}.git/info/lfs/objects/batch", self.lfs_batch, methods=["POST"]
            ),
            Route(f"/{{type:repository_type}}/{repository}/resolve/{{address:path}}", self.resolve),
            Route(f"/{repository}/resolve/{{address:path}}", self.resolve),
        ]

    # ---- who may do what --------------------------------------------------------------------------------------------

    def reader(self, request: Request) -> str | None:
        """The user that the request's token belongs to."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.user if token in self.tokens else None

    def readable(self, request: Request) -> Repository | JSONResponse:
        """The repository a request names, or the Hub's refusal: 401 without a token, 404 with one, 403 if gated."""
        reader = self.reader(request)
        if reader is None and request.headers.get("authorization"):
            return refusal(401, None, "Invalid credentials in Authorization header")
        kind = SINGULAR[request.path_params.get("type", "models")]
        name = "{namespace}/{name}".format(**request.path_params)
        found = self.repositories.get((kind, name))
        if found is None or (found.private and reader is None):
            return refusal(404 if reader else 401, "RepoNotFound", "Repository not found")
        if found.gated and ("/resolve/" in request.url.path or request.url.path.endswith("/auth-check")):
            return refusal(403, "GatedRepo", "Access to this model is restricted")
        return found

    def writable(self, request: Request, *, proposal: bool = False) -> Repository | JSONResponse:
        """The repository a request wants to change: its owner may, and whoever is logged in may propose it."""
        found, reader = self.readable(request), self.reader(request)
        if isinstance(found, Response):
            return found
        if reader is None or (request.path_params["namespace"] != reader and not proposal):
            return refusal(403 if reader else 401, None, "You don't have the rights to write to this repository")
        return found

    # ---- account and repositories -----------------------------------------------------------------------------------

    async def whoami(self, request: Request) -> Response:
        """Who the token belongs to."""
        if self.reader(request) is None:
            return refusal(401, None, "Invalid credentials in Authorization header")
        token = {"displayName": "test", "role": "write"}
        return JSONResponse({"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": token}})

    async def agent_harnesses(self, request: Request) -> Response:
        """What the client asks for once a day, to name the program that calls it."""
        return JSONResponse({"standardEnvVars": [], "harnesses": {}})

    async def validate_yaml(self, request: Request) -> Response:
        """Whether a card's front matter is YAML."""
        body = await request.json()
        block = front_matter(body["content"])
        if block is None:
            return JSONResponse({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        try:
            metadata = yaml.safe_load(block) or {}
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": f"YAML: {error}"}], "warnings": []}, 400)
        if body["repoType"] == "space" and "sdk" not in metadata:
            return JSONResponse({"errors": [{"message": '"sdk" is required'}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def create(self, request: Request) -> Response:
        """A new repository with one empty commit."""
        reader = self.reader(request)
        if reader is None:
            return refusal(401, None, "Invalid username or password.")
        body = await request.json()
        kind, namespace = body.get("type") or "model", body.get("organization") or reader
        name = f"{namespace}/{body['name']}"
        if namespace != reader:
            return refusal(
                403, None, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
            )
        answer = {"url": f"{self.url}/{prefix(kind)}{name}", "name": name, "id": name}
        if (kind, name) in self.repositories:
            return JSONResponse(answer | {"error": "You already created this repository"}, 409)
        created = self.add_repository(name, kind, private=body.get("visibility") == "private", sdk=body.get("sdk"))
        created.variables = {variable["key"]: variable["value"] for variable in body.get("variables", [])}
        return JSONResponse(answer)

    def add_repository(
        self, name: str, kind: str = "model", *, private: bool = False, sdk: str | None = None
    ) -> Repository:
        """A repository made by the test itself, also one of somebody else's."""
        first = Commit(oid=sha1(f"{kind} {name}"), title="initial commit")
        repository = Repository(name, kind, private, sdk, [first], {"main": first.oid})
        self.repositories[kind, name] = repository
        return repository

    def add_file(self, repository: Repository, path: str, data: bytes) -> None:
        """A file put on main by the test itself, past the client."""
        files = repository.head.files | {path: self.store(data)}
        self.add_commit(repository, "main", Commit(sha1(f"{repository.head.oid} {path}"), f"Add {path}", files))

    async def variables(self, request: Request) -> Response:
        """A Space's variables, one of them new or changed where it is posted."""
        repository = self.writable(request)
        if isinstance(repository, Response):
            return repository
        if request.method == "POST":
            body = await request.json()
            repository.variables[body["key"]] = body["value"]
        return JSONResponse({key: {"key": key, "value": value} for key, value in repository.variables.items()})

    async def branch(self, request: Request) -> Response:
        """A new branch from main."""
        repository, branch = self.writable(request), request.path_params["branch"]
        if isinstance(repository, Response):
            return repository
        if branch.startswith("refs/"):
            return refusal(400, None, f"Invalid reference for a branch: {branch}")
        if branch in repository.references:
            return refusal(409, None, "Reference already exists")
        repository.references[branch] = repository.head.oid
        return Response()

    async def info(self, request: Request) -> Response:
        """What repo_info() returns."""
        repository = self.readable(request)
        if isinstance(repository, Response):
            return repository
        commit = repository.commit_at(request.path_params.get("revision", "main"))
        if commit is None:
            return refusal(404, "RevisionNotFound", "Invalid rev id")
        return JSONResponse(
            {
                "_id": "0",
                "id": repository.name,
                "sha": commit.oid,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "sdk": repository.sdk,
                "tags": [],
                "siblings": [
                    {"rfilename": path} | (metadata(stored) if request.query_params.get("blobs") else {})
                    for path, stored in commit.files.items()
                ],
            }
        )

    async def auth_check(self, request: Request) -> Response:
        """Whether the token may read the files of a repository."""
        repository = self.readable(request)
        return repository if isinstance(repository, Response) else Response()

    def commit_to_read(self, request: Request) -> Commit | Response:
        """The commit that a request names, or the refusal."""
        repository = self.readable(request)
        if isinstance(repository, Response):
            return repository
        commit = repository.commit_at(request.path_params["revision"])
        if commit is None:
            return refusal(404, "RevisionNotFound", "Invalid rev id")
        return commit

    async def tree(self, request: Request) -> Response:
        """The files and folders of a commit or of a folder in it, as list_repo_tree() asks for them."""
        commit = self.commit_to_read(request)
        if isinstance(commit, Response):
            return commit
        folder = request.path_params.get("path", "")
        rows = rows_below(commit, f"{folder}/" if folder else "")
        if folder and not rows:
            return refusal(404, "EntryNotFound", f"{folder} does not exist")
        depth = folder.count("/") + 1 if folder else 0
        is_recursive = request.query_params.get("recursive", "").lower() == "true"
        return JSONResponse([row for row in rows if is_recursive or row["path"].count("/") == depth])

    async def paths_info(self, request: Request) -> Response:
        """Those of the named files and folders that a commit has."""
        commit = self.commit_to_read(request)
        if isinstance(commit, Response):
            return commit
        form = await (request.form() if "form" in request.headers["content-type"] else request.json())
        wanted = form["paths"] if isinstance(form, dict) else form.getlist("paths")
        return JSONResponse([row for row in rows_below(commit, "") if row["path"] in wanted])

    # ---- upload -----------------------------------------------------------------------------------------------------

    def store(self, data: bytes) -> StoredFile:
        """The bytes of a regular file, kept under their SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        (self.blobs / sha256).write_bytes(data)
        return StoredFile(git_oid(data), sha256, len(data))

    async def preupload(self, request: Request) -> Response:
        """Which way each file shall arrive, and what the Hub holds of it already."""
        repository = self.writable(request, proposal="create_pr" in request.query_params)
        if isinstance(repository, Response):
            return repository
        commit = repository.commit_at(request.path_params["revision"])
        if commit is None:
            return refusal(404, "RevisionNotFound", "Invalid rev id")
        answers = []
        for announced in (await request.json())["files"]:
            text = b"\0" not in base64.b64decode(announced["sample"])
            mode = "regular" if text and announced["size"] < self.lfs_threshold else "lfs"
            answer = {"path": announced["path"], "uploadMode": mode, "shouldIgnore": False}
            if (stored := commit.files.get(announced["path"])) is not None:
                answer["oid"] = stored.sha256 if stored.lfs else stored.oid
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def lfs_batch(self, request: Request) -> Response:
        """Where to PUT the LFS files that are not here yet; the client names no branch for a pull request."""
        body = await request.json()
        repository = self.writable(request, proposal="ref" not in body)
        if isinstance(repository, Response):
            return repository
        answers = []
        for wanted in body["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
            if not (self.blobs / wanted["oid"]).exists():
                place = f"{self.url}/_lfs/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": place}, "verify": {"href": f"{place}/verify"}}
            answers.append(answer)
        return JSONResponse({"transfer": "basic", "objects": answers})

    async def lfs_put(self, request: Request) -> Response:
        """The bytes of one LFS file."""
        oid, data = request.path_params["oid"], await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            return refusal(400, None, "SHA-256 mismatch")
        (self.blobs / oid).write_bytes(data)
        return Response()

    async def lfs_verify(self, request: Request) -> Response:
        """Whether an LFS file arrived whole."""
        wanted = await request.json()
        blob = self.blobs / wanted["oid"]
        complete = blob.exists() and blob.stat().st_size == wanted["size"]
        return JSONResponse({}) if complete else refusal(404, None, "object not found")

    async def xet_token(self, request: Request) -> Response:
        """Where hf_xet reads and writes: a folder here, a server of chunks on the Hub."""
        if request.path_params["right"] == "write":
            repository = self.writable(request, proposal="create_pr" in request.query_params)
        else:
            repository = self.readable(request)
        if isinstance(repository, Response):
            return repository
        self.chunks.mkdir(exist_ok=True)
        place, expiry = f"local://{self.chunks.resolve()}", int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": place,
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expiry),
        }
        return JSONResponse({"casUrl": place, "accessToken": "xet", "exp": expiry}, headers=headers)

    async def commit(self, request: Request) -> Response:
        """A commit on a branch, or, with create_pr, on a new pull request."""
        proposal = "create_pr" in request.query_params
        repository = self.writable(request, proposal=proposal)
        if isinstance(repository, Response):
            return repository
        revision = request.path_params["revision"]
        parent = repository.commit_at(revision)
        if parent is None:
            return refusal(404, "RevisionNotFound", "Invalid rev id")
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        try:
            commit = self.committed(parent, lines)
        except FileNotFoundError as error:
            return refusal(400, None, str(error))
        page = f"{self.url}/{prefix(repository.kind)}{repository.name}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{page}/commit/{commit.oid}"}
        if proposal:
            number = 1 + sum(reference.startswith("refs/pr/") for reference in repository.references)
            revision = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{page}/discussions/{number}"
        self.add_commit(repository, revision, commit)
        return JSONResponse(answer)

    def committed(self, parent: Commit, lines: list[dict[str, Any]]) -> Commit:
        """The commit that a request's lines of JSON describe; FileNotFoundError for a large file that never came."""
        files, title = dict(parent.files), ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    title = value["summary"]
                case "file":
                    files[value["path"]] = self.store(base64.b64decode(value["content"]))
                case "lfsFile":
                    files[value["path"]] = self.arrived(value["oid"], value["size"])
                case "deletedFile":
                    del files[value["path"]]
        return Commit(sha1(f"{parent.oid} {title} {sorted(files.items())}"), title, files)

    def arrived(self, sha256: str, size: int) -> StoredFile:
        """A large file that came before the commit, by either way."""
        xet = xet_hashes(self.chunks).get(sha256) if self.xet else None
        if xet is None and not (self.blobs / sha256).exists():
            raise FileNotFoundError(f"LFS object {sha256} was never uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return StoredFile(git_oid(pointer.encode()), sha256, size, lfs=True, xet=xet)

    @staticmethod
    def add_commit(repository: Repository, revision: str, commit: Commit) -> None:
        """Makes `revision` point to a new commit."""
        repository.commits.append(commit)
        repository.references[revision] = commit.oid

    # ---- download ---------------------------------------------------------------------------------------------------

    async def resolve(self, request: Request) -> Response:
        """One file of one commit, with the headers that the client builds its cache from."""
        repository = self.readable(request)
        if isinstance(repository, Response):
            return repository
        # As it was sent: a branch's own slashes come as %2F.
        address = request.scope["raw_path"].decode().partition("/resolve/")[2]
        revision, _, path = map(unquote, address.partition("/"))
        commit = repository.commit_at(revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", "Invalid rev id")
        stored = commit.files.get(path)
        if stored is None:
            return refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{stored.sha256 if stored.lfs else stored.oid}"'}
        if stored.lfs:  # on the Hub these are the headers of a redirect to another server
            headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(stored.size)}
        if stored.xet:
            page = f"{self.url}/api/{repository.kind}s/{repository.name}"
            headers |= {
                "X-Xet-Hash": stored.xet,
                "X-Xet-Refresh-Route": f"{page}/xet-read-token/{commit.oid}",
            }
            if request.method == "HEAD":  # the bytes lie in the folder of chunks, where hf_xet reads them itself
                return Response(headers=headers | {"Content-Length": str(stored.size)})
            return refusal(501, None, "this Hub serves xet files through hf_xet only")
        return FileResponse(self.blobs / stored.sha256, headers=headers)

    # ---- running ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> LoopbackHub:
        """Starts serving; returns once connections are accepted."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio asks for this itself only where a socket names its protocol; without it every answer waits 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops serving and frees the port."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


async def unheard(message: Message) -> None:
    """What becomes of an answer that gets lost on its way."""


class _Recorded:
    """Notes every request's method, path and status, and answers with `hub.fault` while there is one."""

    def __init__(self, app: ASGIApp, hub: LoopbackHub) -> None:
        """Wraps the application, as Starlette's middleware does."""
        self.app = app
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                query = scope["query_string"].decode()
                path = scope["path"] + (f"?{query}" if query else "")
                self.hub.requests.append((scope["method"], path, message["status"]))
            await send(message)

        fault = self.hub.fault if self.hub.broken in (None, len(self.hub.requests)) else None
        if fault is None:
            await self.app(scope, receive, noted)
            return
        if self.hub.answer_lost:
            await self.app(scope, receive, unheard)
        await refusal(fault, None, "the Hub is in trouble")(scope, receive, noted)


def metadata(stored: StoredFile) -> dict[str, Any]:
    """What repo_info(files_metadata=True) gives of a file beside its path."""
    lfs = {"lfs": {"sha256": stored.sha256, "size": stored.size, "pointerSize": 132}} if stored.lfs else {}
    return {"size": stored.size, "blobId": stored.oid, **lfs}


def rows_below(commit: Commit, folder: str) -> list[dict[str, Any]]:
    """The files and folders of a commit whose paths start so, as its trees list them."""
    rows: dict[str, dict[str, Any]] = {}
    for path, stored in sorted(commit.files.items()):
        if not path.startswith(folder):
            continue
        for place, letter in enumerate(path):
            if letter == "/" and place >= len(folder):
                rows[path[:place]] = {"type": "directory", "path": path[:place], "size": 0, "oid": sha1(path[:place])}
        rows[path] = {"type": "file", "path": path, "size": stored.size, "oid": stored.oid}
        if stored.lfs:
            rows[path]["lfs"] = {"oid": stored.sha256, "size": stored.size, "pointerSize": 132}
        if stored.xet:
            rows[path]["xetHash"] = stored.xet
    return list(rows.values())


def refusal(status: int, code: str | None, message: str) -> JSONResponse:
    """An error as the Hub gives it: the client picks its exception from these headers."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return JSONResponse({"error": message}, status, headers)


def prefix(kind: str) -> str:
    """What stands before a repository's name in its address."""
    return "" if kind == "model" else f"{kind}s/"


def sha1(text: str) -> str:
    """A commit's id, different in every commit."""
    return hashlib.sha1(f"{text} {time.time_ns()}".encode()).hexdigest()


def git_oid(data: bytes) -> str:
    """The SHA-1 that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def front_matter(card: str) -> str | None:
    """The YAML between the first two --- lines of a card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return found[1] if found else None


def xet_hashes(chunks: Path) -> dict[str, str]:
    """The xet hash of each SHA-256 that hf_xet's shard files name.

    A shard is a 48-byte header and then, file by file, 48-byte entries: the file's hash with its flags and number of
    segments, the segments, with flag 31 a verification entry for each, and with flag 30 the file's SHA-256. An entry
    of 0xff bytes closes the list.
    """
    hashes = {}
    for shard in chunks.rglob("shards/*.mdb"):
        data, position = shard.read_bytes(), 48
        while position + 48 <= len(data) and data[position : position + 32] != b"\xff" * 32:
            xet = hexadecimal(data[position : position + 32])
            flags, segments = struct.unpack_from("<II", data, position + 32)
            position += 48 * (1 + segments * (2 if flags & 1 << 31 else 1))
            if flags & 1 << 30:
                hashes[hexadecimal(data[position : position + 32])] = xet
                position += 48
    return hashes


def hexadecimal(data: bytes) -> str:
    """A hash as xet writes it: four little-endian 64-bit words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", data))


# ---- a line with faults ----------------------------------------------------------------------------------------------

# What the Hub, or somebody in between, may answer instead: status, headers, body.
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "401": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}"),
    "403 gated": (403, {"X-Error-Code": "GatedRepo"}, b"{}"),
    "404 repository": (404, {"X-Error-Code": "RepoNotFound"}, b"{}"),
    "404 revision": (404, {"X-Error-Code": "RevisionNotFound"}, b"{}"),
    "409": (409, {"X-Error-Message": "busy"}, b"{}"),
    "429": (429, {"Retry-After": "2"}, b"{}"),  # the client waits as long as this says
    "500": (500, {}, b"oh"),
    "html": (200, {"Content-Type": "text/html"}, b"<html><body>Log in to the hotel's network</body></html>"),
    "other json": (200, {"Content-Type": "application/json"}, b"[1]"),
}
# What may happen to the answer on its way, with the request done all the same.
ACCIDENTS = ("reset in the body", "cut short", "length too large", "length too small", "wrong bytes", "slow")
# What may happen before anything is done; the last two with the connection left open.
LOSSES = ("refused", "reset", "redirect loop", "silent", "stuck in the body")
FAULTS = (*ANSWERS, *ACCIDENTS, *LOSSES)


class FaultyLine:
    """What lies between a client and a LoopbackHub: a port whose requests can go wrong, each on its own connection."""

    def __init__(self, hub: LoopbackHub) -> None:
        """A line to a running Hub, which speaks of itself by the line's address from then on."""
        self.host = hub.url.removeprefix("http://")
        self.counting = threading.Lock()
        self.listener: socket.socket | None = None
        self.port = 0
        self.asked = ""  # the request that met the last fault first
        self.mend()
        self._listen()
        hub.url = self.url = f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        """Everything goes through from now on; requests are counted from 0."""
        self.fault, self.at, self.lasting = "", 0, False
        self.requests: list[str] = []
        self.met, self.mended = threading.Event(), threading.Event()

    def break_at(self, number: int, fault: str, *, lasting: bool = False) -> None:
        """Lets request `number`, counted from 0, and with `lasting` all after it, meet one of FAULTS."""
        self.mend()
        self.fault, self.at, self.lasting = fault, number, lasting
        self.asked = ""
        if fault == "refused" and number == 0:
            self._refuse()

    def close(self) -> None:
        """Frees the port."""
        self.mended.set()
        self._hang_up()

    def heal(self) -> None:
        """Ends a fault, also for those who wait in it."""
        self.mended.set()
        self.mend()
        if self.listener is None:
            self._listen()

    def _listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                listener.close()
                return
            threading.Thread(target=_Request, args=(connection, address, self), daemon=True).start()

    def _hang_up(self) -> None:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)  # close() alone would not wake the thread that waits in accept()
            self.listener = None

    def _refuse(self) -> None:
        self.met.set()
        self._hang_up()
        if not self.lasting:
            threading.Timer(0.3, self.heal).start()

    def next_fault(self, request: str) -> str:
        """Counts a request; what happens to it, an empty text for nothing."""
        with self.counting:
            number = len(self.requests)
            self.requests.append(request)
            if number == self.at and self.fault:
                self.asked = request
            if self.fault == "refused":
                if number == self.at - 1:
                    self._refuse()
                return ""
            return self.fault if number == self.at or (self.lasting and number > self.at) else ""


class _Request(BaseHTTPRequestHandler):
    """One request on its way."""

    server: FaultyLine
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.connection_lost = False
        super().setup()

    def log_message(self, *arguments: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.connection.close()

    def pass_on(self) -> None:
        """Sends the request to the Hub and its answer back, or lets happen what has to happen."""
        line = self.server
        mended = line.mended
        fault = line.next_fault(f"{self.command} {self.path}")
        if fault:
            line.met.set()
        if fault == "silent":
            mended.wait()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        if fault == "reset":
            self.reset()
        elif fault == "redirect loop":
            self.answer(302, {"Location": f"{line.url}{self.path}"}, b"")
        elif fault in ANSWERS:
            self.answer(*ANSWERS[fault])
        else:
            answer = self.from_hub(body)
            self.spoil(fault, *answer, mended)

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def from_hub(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.host)
        kept = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "transfer-encoding")
        }
        connection.request(self.command, self.path, body or None, kept | {"Connection": "close"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), data

    def spoil(self, fault: str, status: int, headers: dict[str, str], body: bytes, mended: threading.Event) -> None:
        length = int(headers.pop("content-length", len(body)))
        half = body[: len(body) // 2]
        if fault in ("", "slow"):
            self.head(status, headers, length)
            self.send(body, slowly=fault == "slow", mended=mended)
        elif fault == "wrong bytes":
            for name in ("etag", "x-linked-etag") if self.command == "HEAD" else ():
                if name in headers:
                    headers[name] = headers[name].translate(str.maketrans("0123456789", "1234567890"))
            self.head(status, headers, length)
            self.send(bytes(byte ^ 1 for byte in body))
        elif fault in ("length too large", "length too small"):
            self.head(status, headers, max(0, length + (10 if fault.endswith("large") else -10)))
            self.send(body)
        else:  # what breaks off in the middle
            self.head(status, headers, length)
            self.send(half)
            if fault == "reset in the body":
                self.reset()
            elif fault == "stuck in the body":
                mended.wait()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.head(status, headers, len(body))
        self.send(body)

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, body: bytes, *, slowly: bool = False, mended: threading.Event | None = None) -> None:
        if self.command == "HEAD":
            return
        if not slowly:
            self.wfile.write(body)
            return
        for place in range(len(body)):
            self.wfile.write(body[place : place + 1])
            if mended is not None and mended.wait(1):
                return

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
