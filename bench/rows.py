"""What a row of the table is, what goals it has, and the world it runs in."""
import pathlib, shutil, statistics, subprocess, tempfile
from dataclasses import dataclass, field
from typing import Callable

from files import Files
from servers import DockerRegistry, NginxPeer, Packhouse, Upstream, Verdaccio

# A folder of more files than this is removed at the end of the whole run: making files is slow for a while after many were removed.
FEW_FILES = 3000


@dataclass(frozen=True)
class Goal:
    """A figure of ours, alone or held against a peer's of the same round, and the bounds it should keep: a floor or ceiling
    that is to be met, and in `aim` what is wished for."""
    figure: str
    against: str = None
    least: float = None
    most: float = None
    aim: float = None
    difference: bool = False
    of: str = "packhouse"

    def values(self, servers):
        """The figure of each round."""
        ours = [one[self.figure] for one in servers[self.of]]
        if not self.against:
            return ours
        pairs = zip(ours, (one[self.figure] for one in servers[self.against]))
        return [mine - theirs if self.difference else mine / max(theirs, 1e-12) for mine, theirs in pairs]

    def judged(self, servers):
        if any(name and name not in servers for name in (self.of, self.against)):
            return {"verdict": "not run"}
        values = self.values(servers)
        middle = statistics.median(values)
        holds = lambda bound: bound is not None and (middle >= bound if self.least is not None else middle <= bound)
        met = holds(self.least if self.least is not None else self.most)
        verdict = "met, aim too" if met and holds(self.aim) else "met" if met else "MISSED"
        return {"verdict": verdict, "figure": middle, "low": min(values), "high": max(values)}


def ratio(figure, against, least=None, most=None, aim=None, of="packhouse"):
    return Goal(figure, against, least, most, aim, of=of)


@dataclass(frozen=True)
class Row:
    """A line of work. `run` is given a world and gives, by server, a list of figures for each round."""
    name: str
    number: int
    unit: str
    run: Callable
    goals: list = field(default_factory=list)
    # Whether servers run on core 1 and loads on core 0. Rows in which the upstream works too share both cores.
    pinned: bool = True
    # Whether it needs the network of the outside world.
    online: bool = False
    # Whether its load is oha, which takes minutes to install.
    paced: bool = False
    # A folder in memory instead of on the disk.
    in_memory: bool = False


class World:
    """What one row runs in: a folder, the local upstream, and the servers that the row asks for."""

    def __init__(self, row, options):
        self.row, self.options = row, options
        place = "/dev/shm" if row.in_memory and pathlib.Path("/dev/shm").is_dir() else None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="packhouse-bench-", dir=place))
        self.servers, self.notes = [], []
        self.certificate, self.key = self.folder / "certificate.pem", self.folder / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
        subprocess.run([*make, *subject, "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True)
        (self.folder / "files").mkdir()
        self.upstream = self.started(Upstream(self))
        self.files = Files(self.folder / "files", self.upstream.origin)

    def started(self, server):
        self.servers.append(server)
        return server

    def nginx(self):
        return self.started(NginxPeer(self, self.upstream, self.row.pinned, self.options.log))

    def nginx_default(self):
        """With the buffers that nginx has if nobody says anything of them."""
        return self.started(NginxPeer(self, self.upstream, self.row.pinned, self.options.log, "nginx-default", buffers=""))

    def packhouse(self, origin=None, **more):
        return self.started(Packhouse(self, origin or self.upstream.origin, self.row.pinned, self.options.log, **more))

    def verdaccio(self, origin=None):
        return self.started(Verdaccio(self, origin or self.upstream.origin, self.row.pinned))

    def docker_registry(self, upstream=None):
        return self.started(DockerRegistry(self, upstream, self.row.pinned))

    def memory(self):
        """The most that each server ever held, in bytes."""
        return {server.name: server.memory("VmHWM") for server in self.servers if server is not self.upstream}

    def versions(self):
        return {server.name: server.version for server in self.servers if server is not self.upstream}

    def close(self, last):
        """Stops the servers and removes the folder, unless it holds many files and more rows follow; gives what is left of it."""
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()
        if last or self.row.in_memory or sum(1 for _ in self.folder.rglob("*")) <= FEW_FILES:
            shutil.rmtree(self.folder, ignore_errors=True)
        return [self.folder] if self.folder.exists() else []
