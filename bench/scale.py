"""Rows about what there is much of: packages in the store, connections, and the memory they take."""
import os, signal, socket, subprocess, time

from files import tarball
from hot import MB
from install import NORA_PROGRAM, ROOT, say
from loads import Target, alternate, wrk
from rows import Goal, Row, ratio
from servers import Nora

FILL = ROOT / "target/release/examples/fill"
VERSIONS = 10
CONNECTIONS = 4000
PATH = "/npm/@bench/some/-/some-1.0.0.tgz"


def stocked(server, packages=0, longest=0):
    """Gives a server a package and a layer, and as many more packages as it should have. Gives the layer's path and their number."""
    server.publish("@bench/some", tarball("@bench/some", "1.0.0", 20_000))
    layer = server.push_blob(os.urandom(1000))
    if not packages:
        return layer, 0
    server.stop()
    done = subprocess.run([FILL, server.config, "bench", str(packages), str(VERSIONS), str(longest)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the store cannot be filled: {done.stderr}")
    server.again()
    return layer, int(done.stdout)


def start(server, stop_by):
    """Seconds from a start to the first answer, after a stop of the kind."""
    name = f"@bench/late-{time.time_ns()}"
    server.publish(name, tarball(name, "1.0.0", 700))
    server.stop(stop_by)
    started = time.time()
    server.again()
    server.get(PATH).read()
    return {"start": time.time() - started}


def million(world):
    """The hot rows beside an empty store, how long a start takes, and the memory of a server with nothing to do."""
    if not FILL.exists():
        raise SystemExit("build it first: cargo build --release --example fill")
    full, empty = world.packhouse(), world.packhouse(name="empty")
    say(f"  {world.row.name}: filling the store for at most {world.options.fill_seconds} s")
    (layer, made), (empty_layer, _) = stocked(full, world.options.packages, world.options.fill_seconds), stocked(empty)
    held = (full.data / "state.redb").stat().st_size
    world.notes.append(f"{made:,} packages with {made * VERSIONS:,} versions, state.redb of {held >> 20:,} MB")
    rounds = range(min(3, world.options.rounds))
    starts = {"clean start": [start(full, signal.SIGTERM) for _ in rounds], "killed start": [start(full, signal.SIGKILL) for _ in rounds]}
    seconds = world.options.seconds
    servers = alternate(world, [Target(empty, PATH), Target(full, PATH)], lambda target, _: wrk(target, 64, seconds))
    small = [Target(empty, empty_layer, name="empty, 1 KB"), Target(full, layer, name="packhouse, 1 KB")]
    servers |= alternate(world, small, lambda target, _: wrk(target, 64, seconds))
    full.settle()
    return servers | starts | {"idle": [{"memory": full.memory()}]}


def idle(world):
    """Memory of a server that was just started and has nothing to do; of NORA too, where it is installed."""
    servers = [world.packhouse()]
    if NORA_PROGRAM.exists():
        servers.insert(0, world.started(Nora(world)))
    time.sleep(2)
    world.notes += [f"{server.name}: {server.memory('RssAnon') / MB:.1f} MB of it anonymous" for server in servers]
    return {server.name: [{"memory": server.memory()}] for server in servers}


def connections(world):
    """What one of 4,000 connections takes that have each asked for something and wait to ask again."""
    server = world.packhouse()
    stocked(server)
    target = Target(server, PATH)
    wrk(target, 64, 1)
    server.settle()
    before = server.memory()
    head = "\r\n".join([f"GET {PATH} HTTP/1.1", "Host: 127.0.0.1", *target.header_lines(), "", ""]).encode()
    size = len(server.get(PATH).read())
    held = []
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(head)
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < size:
            received += connection.recv(1 << 16)
        held.append(connection)
    server.settle()
    grown = server.memory() - before
    for connection in held:
        connection.close()
    return {server.name: [{"memory": grown / CONNECTIONS}]}


ROWS = [
    Row("million", 21, "request", million, [
        ratio("rate", "empty", least=0.95), ratio("rate", "empty, 1 KB", least=0.95, of="packhouse, 1 KB"),
        Goal("start", most=1.0, of="clean start"), Goal("start", most=2.0, of="killed start"), Goal("memory", most=256 * MB, of="idle")]),
    Row("memory-idle", 22, "server", idle, [Goal("memory", most=30 * MB)]),
    Row("memory-connections", 22, "connection", connections, [Goal("memory", most=25 << 10)]),
]
