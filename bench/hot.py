"""Hot rows: what is stored is sent, again and again."""
import gzip, hashlib, json, os

from files import tarball
from loads import Target, alternate, h2load, oha, streams, wrk
from rows import Row, ratio

ABBREVIATED = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"
SHORT = {"Accept": ABBREVIATED, "Accept-Encoding": "gzip"}
MB = 1 << 20
LARGE = 100_000_000


def check_same(targets, body):
    """Before anything is timed, the bytes of every server are compared."""
    for target in targets:
        if hashlib.sha256(body).hexdigest() != target.server.digest(target.path):
            raise SystemExit(f"{target.name} sends other bytes for {target.path}")


def stored(world, size, peer, tls=False):
    """A layer in packhouse and in a peer, as targets; the peer comes first."""
    body = os.urandom(size)
    packhouse, other = world.packhouse(), getattr(world, peer)()
    path = other.push_blob(body) if peer == "docker_registry" else world.files.static("layer", body)
    targets = [Target(other, path, tls=tls), Target(packhouse, packhouse.push_blob(body), tls=tls)]
    check_same(targets, body)
    return targets


def published(world, size, peer="nginx", tls=False):
    """A private npm package in packhouse, its tarball or the package in a peer, as targets."""
    body = tarball("@bench/some", "1.0.0", size)
    packhouse, other = world.packhouse(), getattr(world, peer)()
    packhouse.publish("@bench/some", body)
    path = "/@bench/some/-/some-1.0.0.tgz"
    if peer == "verdaccio":
        other.publish("@bench/some", body)
    targets = [Target(other, path if peer == "verdaccio" else world.files.static("some.tgz", body), tls=tls), Target(packhouse, "/npm" + path, tls=tls)]
    check_same(targets, body)
    return targets


def small(make, size, connections, **more):
    """Requests a second of one small file, by wrk."""
    def run(world):
        targets = make(world, size, **more)
        return alternate(world, targets, lambda target, _: wrk(target, connections, world.options.seconds))
    return run


def large(size, parallel=1, gigabytes=3.0, **more):
    """Gigabytes a second of one large file, by one curl for each stream. `gigabytes` are sent for each second of a round."""
    def run(world):
        times = max(2, round(gigabytes * world.options.seconds * 1e9 / size / parallel))
        targets = stored(world, size, **more)
        return alternate(world, targets, lambda target, _: streams(target, size, times, parallel))
    return run


def http2(world):
    targets = published(world, 20_000, tls=True)
    return alternate(world, targets, lambda target, _: h2load(target, 8, 32, world.options.seconds))


def tail(world):
    """20,000 requests a second on 64 connections, whatever the server could do."""
    targets = published(world, 20_000)
    return alternate(world, targets, lambda target, _: oha(target, 64, world.options.seconds + 3, rate=20_000))


def private_and_public(world):
    body = tarball("@bench/some", "1.0.0", 20_000)
    packhouse = world.packhouse()
    for name in ["@bench/some", "@bench/open"]:
        packhouse.publish(name, body if name == "@bench/some" else tarball(name, "1.0.0", 20_000))
    packhouse.command("package", "visibility", "npm", "@bench/open", "public")
    anonymous = Target(packhouse, "/npm/@bench/open/-/open-1.0.0.tgz", {"Authorization": ""}, name="anonymous")
    targets = [anonymous, Target(packhouse, "/npm/@bench/some/-/some-1.0.0.tgz", name="packhouse")]
    return alternate(world, targets, lambda target, _: wrk(target, 64, world.options.seconds))


def numbers(server, path, headers):
    """The versions a document lists."""
    reply = server.get(path, headers)
    body = reply.read()
    return set(json.loads(gzip.decompress(body) if reply.headers["Content-Encoding"] == "gzip" else body)["versions"]), body


def sealed(make, connections):
    """The abbreviated, compressed document beside the same bytes by `gzip_static`."""
    def run(world):
        document = getattr(world.files, make)()
        nginx, packhouse = world.nginx(), world.packhouse()
        path = f"/npm/{document['name']}"
        listed, body = numbers(packhouse, path, SHORT)
        if listed != set(document["versions"]):
            raise SystemExit("packhouse sends another packument")
        world.files.static("document.json.gz", body)
        targets = [Target(nginx, world.files.static("document.json", gzip.decompress(body)), SHORT), Target(packhouse, path, SHORT)]
        return alternate(world, targets, lambda target, _: wrk(target, connections, world.options.seconds))
    return run


def whole(make, connections, longer=1):
    """The full document, uncompressed, beside verdaccio; both have it from the upstream. Where verdaccio answers only a few
    times a second, rounds are longer."""
    def run(world):
        document = getattr(world.files, make)()
        verdaccio, packhouse = world.verdaccio(), world.packhouse()
        targets = [Target(verdaccio, f"/{document['name']}"), Target(packhouse, f"/npm/{document['name']}")]
        for target in targets:
            if numbers(target.server, target.path, {})[0] != set(document["versions"]):
                raise SystemExit(f"{target.name} sends another packument")
        return alternate(world, targets, lambda target, _: wrk(target, connections, longer * world.options.seconds))
    return run


ROWS = [
    Row("blob-1k", 1, "request", small(stored, 1000, 64, peer="nginx"),
        [ratio("rate", "nginx", least=1.10, aim=1.25), ratio("cpu", "nginx", most=0.90, aim=0.78)]),
    Row("tarball-20k", 2, "request", small(published, 20_000, 64),
        [ratio("rate", "nginx", least=0.92), ratio("cpu", "nginx", most=0.95, aim=0.85)]),
    Row("tarball-1m", 0, "request", small(published, 1 << 20, 8)),
    Row("stream-100m", 3, "GB", large(LARGE, peer="nginx"),
        [ratio("rate", "nginx", least=0.85, aim=0.95), ratio("cpu", "nginx", most=1.3)]),
    Row("streams-100m", 4, "GB", large(LARGE, parallel=8, gigabytes=5, peer="nginx"),
        [ratio("rate", "nginx", least=0.90, aim=0.98), ratio("grown", None, most=16 * MB)]),
    Row("tls-20k", 5, "request", small(published, 20_000, 64, tls=True),
        [ratio("rate", "nginx", least=1.08, aim=1.15), ratio("cpu", "nginx", most=0.70, aim=0.60)]),
    Row("tls-100m", 6, "GB", large(LARGE, gigabytes=1, peer="nginx", tls=True),
        [ratio("rate", "nginx", least=1.35, aim=1.6), ratio("cpu", "nginx", most=0.45, aim=0.30)]),
    Row("http2-20k", 7, "request", http2,
        [ratio("rate", "nginx", least=1.15, aim=1.3), ratio("cpu", "nginx", most=0.90)]),
    Row("registry-20k", 8, "request", small(stored, 20_000, 64, peer="docker_registry"), [ratio("rate", "docker-registry", least=50, aim=80)]),
    Row("registry-100m", 8, "GB", large(LARGE, gigabytes=2, peer="docker_registry"), [ratio("rate", "docker-registry", least=2.0, aim=2.8)]),
    Row("verdaccio-tarball", 9, "request", small(published, 3700, 16, peer="verdaccio"), [ratio("rate", "verdaccio", least=20, aim=35)]),
    Row("verdaccio-packument", 9, "request", whole("popular", 4), [ratio("rate", "verdaccio", least=60, aim=130)]),
    Row("verdaccio-packument-10m", 9, "request", whole("huge", 2, longer=3), [ratio("rate", "verdaccio", least=60, aim=120)]),
    Row("tail-20k", 12, "request", tail,
        [ratio("p50", "nginx", most=1.0), ratio("p99", "nginx", most=1.15, aim=0.95)], pinned=False, paced=True),
    Row("private", 13, "request", private_and_public, [ratio("rate", "anonymous", least=0.95)]),
    Row("packument", 0, "request", sealed("popular", 64)),
    Row("packument-10m", 15, "request", sealed("huge", 8), [ratio("rate", "nginx", least=1.0)]),
]
