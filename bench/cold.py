"""Cold rows: what is not stored yet comes through from the upstream, whose share of the work is counted as our own."""
import multiprocessing, selectors, socket, threading, time

from hot import LARGE, MB
from loads import GB, Target, alternate, centiles, curl_command, curls, fetch_each, h2load, once, streams, touch, wrk_list
from rows import Goal, Row, ratio

GIGA = 1_000_000_000
# Files of the upstream for each round, which lasts a second whatever was asked for. Who is faster takes some of the next round's.
MISSES = 25_000


def proxies(world, *names):
    """Servers before the upstream: the peers first, packhouse last. Gives targets with a function from a path of the upstream to theirs."""
    made = [world.docker_registry(world.upstream) if name == "docker_registry" else getattr(world, name)() for name in [*names, "packhouse"]]
    # What a first use makes for all later ones is made here.
    path, size = world.files.cold_layers(1000, 1)[0]
    for server in made:
        server.get(local(server, path)).read()
    return [Target(server) for server in made]


def local(server, path):
    return server.mirrored(path) if server.name == "packhouse" else path


def batch(target, files):
    return [(local(target.server, path), size) for path, size in files]


def package(name, size, per_round, parallel):
    """Versions of an npm package, each asked for once. npm promises SHA-512, which packhouse checks."""
    def run(world):
        batches = world.files.cold_package(name, size, per_round, world.options.rounds + 1)
        verdaccio, nginx, packhouse = world.verdaccio(), world.nginx(), world.packhouse()
        for server in [verdaccio, packhouse]:
            server.get(f"{server.prefix}/{name}").read()
        load = lambda target, number: fetch_each(target, [(target.server.prefix + path, size) for path, size in batches[number]], parallel)
        return alternate(world, [Target(nginx), Target(verdaccio), Target(packhouse)], load, again=0, settle=True, before=touch)
    return run


def layers(world):
    """Layers of 100 MB, each asked for once: seconds by curl, bytes by the upstream's own count."""
    each = [world.files.cold_layers(LARGE, 2) for _ in range(world.options.rounds + 1)]
    targets = proxies(world, "nginx", "docker_registry")
    def load(target, number):
        before = sum(world.upstream.fetches(path)[1] for path, _ in each[number])
        result = fetch_each(target, batch(target, each[number]))
        target.server.settle()
        came = sum(world.upstream.fetches(path)[1] for path, _ in each[number]) - before
        sent = LARGE * len(each[number])
        return {**result, "rate": result["rate"] * LARGE / GB, "count": sent / GB, "fetched": came / sent}
    return alternate(world, targets, load, again=0, before=touch)


def misses(world):
    """New names as fast as they go, everything in memory."""
    names = [path for path, _ in world.files.cold_layers(20_000, MISSES * (world.options.rounds + 1))]
    targets = proxies(world, "nginx")
    taken = dict.fromkeys([target.name for target in targets], 0)
    def load(target, _):
        fresh = names[taken[target.name]:][:2 * MISSES]
        result = wrk_list(target, 16, 1, [local(target.server, path) for path in fresh])
        # Some were asked for and not waited for when the time was over.
        taken[target.name] += result["count"] + 64
        return result
    return alternate(world, targets, load, again=0, settle=True, before=touch)


def herd(world):
    """32 curls ask for one cold layer at once."""
    each = world.files.cold_layers(LARGE, world.options.rounds + 1)
    targets = proxies(world, "nginx")
    def load(target, number):
        path, size = each[number]
        before = world.upstream.fetches(path)[0]
        times, took = curls(target, [[local(target.server, path)]] * 32, [size] * 32)
        gets = world.upstream.fetches(path)[0] - before
        return {"rate": 32 * size / GB / took, "count": 32 * size / GB, "took": took, "gets": gets, **centiles([total for _, total in times])}
    return alternate(world, targets, load, again=0, rounds=min(3, world.options.rounds), before=touch)


def filled(size, gigabytes):
    """A layer that each server has filled for itself from the upstream, hot."""
    def run(world):
        path, _ = world.files.cold_layers(size, 1)[0]
        targets = proxies(world, "nginx", "nginx_default")
        for target in targets:
            target.path = local(target.server, path)
            if target.server.digest(target.path) != path[-64:]:
                raise SystemExit(f"{target.name} sends other bytes")
            target.server.settle()
        times = max(2, round(gigabytes * world.options.seconds * 1e9 / size))
        return alternate(world, targets, lambda target, _: streams(target, size, times))
    return run


def first_byte(world):
    """The time to the first byte of layers of 1 MB, each asked for once, beside the upstream itself."""
    each = [world.files.cold_layers(1_000_000, 40) for _ in range(world.options.rounds + 1)]
    targets = [Target(world.upstream, name="direct"), *proxies(world)]
    return alternate(world, targets, lambda target, number: fetch_each(target, batch(target, each[number])), again=0, before=touch)


def tail_while_filling(world):
    """20,000 requests a second of a hot layer of 20 KB, with nothing else to do and while a cold layer of 1 GB comes in."""
    rounds = min(3, world.options.rounds)
    cold = world.files.cold_layers(GIGA, rounds + 1)
    small = world.files.cold_layers(20_000, 1)[0][0]
    server = proxies(world)[0].server
    targets = [Target(server, local(server, small), name=name) for name in ["idle", "packhouse"]]
    server.get(targets[0].path).read()
    def load(target, number):
        if target.name == "idle":
            return h2load(target, 64, 1, 2, rate=20_000)
        begun, ended = [], []
        def fetch():
            time.sleep(0.5)
            begun.append(time.time())
            curls(Target(server), [[local(server, cold[number][0])]], [GIGA])
            ended.append(time.time())
        other = threading.Thread(target=fetch)
        other.start()
        result = h2load(target, 64, 1, 6, rate=20_000)
        other.join()
        meanwhile = [took for start, took in result["requests"] if begun[0] <= start <= ended[0]]
        return {**result, **centiles(meanwhile), "took": ended[0] - begun[0]}
    return alternate(world, targets, load, again=0, rounds=rounds)


def readers(port, head, body, count, ready, verdict):
    """`count` connections that each ask for the body and compare every byte of it. Runs in a process of its own."""
    waiting, places = selectors.DefaultSelector(), {}
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(head[:-2])
        connection.setblocking(False)
        places[connection] = None
        waiting.register(connection, selectors.EVENT_READ)
    ready.wait()
    for connection in places:
        connection.send(head[-2:])
    right = 0
    while places:
        for key, _ in waiting.select():
            connection = key.fileobj
            part, at = connection.recv(1 << 18), places[connection]
            over = not part
            if at is None:
                part, at = part[part.find(b"\r\n\r\n") + 4:], 0
            end = places[connection] = at + len(part)
            if over or end >= len(body) or part != body[at:end]:
                right += end == len(body) and part == body[at:end]
                waiting.unregister(connection)
                del places[connection]
                connection.close()
    verdict.put(right)


def thousand(world):
    """1,000 clients ask for one cold layer at once, and each compares what it gets."""
    (path, size), = world.files.cold_layers(LARGE, 1)
    body = (world.folder / "files" / path.lstrip("/")).read_bytes()
    target, = proxies(world)
    head = "\r\n".join([f"GET {local(target.server, path)} HTTP/1.1", "Host: 127.0.0.1", *target.header_lines(), "", ""]).encode()
    def load(target):
        fork = multiprocessing.get_context("fork")
        ready, verdict = fork.Barrier(3), fork.Queue()
        clients = [fork.Process(target=readers, args=(target.server.port, head, body, 500, ready, verdict)) for _ in range(2)]
        for client in clients:
            client.start()
        ready.wait()
        started = time.time()
        right = sum(verdict.get() for _ in clients)
        took = time.time() - started
        for client in clients:
            client.join()
        sent = 1000 * size / GB
        return {"rate": sent / took, "count": sent, "took": took, "right": right, "gets": world.upstream.fetches(path)[0]}
    return once(world, target, load)


ROWS = [
    Row("cold-20k", 0, "file", package("cold-20k", 20_000, 200, 16)),
    Row("cold-16m", 0, "file", package("cold-16m", 16 << 20, 3, 1)),
    Row("cold-100m", 10, "GB", layers, [
        ratio("rate", "nginx", least=0.85, aim=1.05), ratio("rate", "docker-registry", least=1.2, aim=1.5), ratio("fetched", None, most=1.01)], pinned=False),
    Row("cold-20k-memory", 11, "file", misses, [ratio("rate", "nginx", least=1.2, aim=1.6)], in_memory=True),
    Row("herd-32", 11, "GB", herd, [Goal("gets", most=1), ratio("took", "nginx", most=1.25)], pinned=False),
    Row("tail-while-filling", 12, "request", tail_while_filling, [ratio("p99", "idle", most=3.0)], pinned=False),
    Row("filled-100m", 14, "GB", filled(LARGE, 3), [ratio("rate", "nginx-default", least=1.3), ratio("cpu", "nginx-default", most=1.0)]),
    Row("filled-1g", 14, "GB", filled(GIGA, 3), [ratio("rate", "nginx-default", least=1.3), ratio("cpu", "nginx-default", most=1.0)]),
    Row("first-byte", 16, "file", first_byte, [Goal("first", "direct", most=0.001, difference=True)], pinned=False),
    Row("herd-1000", 17, "GB", thousand, [Goal("gets", most=1), Goal("right", least=1000), Goal("grown", most=128 * MB)], pinned=False),
]
