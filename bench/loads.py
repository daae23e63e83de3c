"""Loads, and the alternating rounds that make two servers comparable on a machine that is never quite quiet.

A load gives a dictionary of figures. `count` is what was done, in the row's unit; `rate` is units a second; times are in seconds.
"""
import json, mmap, os, pathlib, re, signal, subprocess, tempfile, threading, time
from dataclasses import dataclass, field

from install import OHA_PROGRAM, ROOT, say
from servers import PIN, Server

TICK = os.sysconf("SC_CLK_TCK")
QUIET_CORES = 0.12
GB = 1e9


@dataclass
class Target:
    """What a load is put on: a path of a server, with the headers of a caller."""
    server: Server
    path: str = ""
    headers: dict = field(default_factory=dict)
    name: str = ""
    tls: bool = False

    def __post_init__(self):
        self.name = self.name or self.server.name

    @property
    def origin(self):
        return self.server.tls_origin if self.tls else self.server.origin

    @property
    def url(self):
        return self.origin + self.path

    def header_lines(self):
        return [f"{name}: {value}" for name, value in {**self.server.headers, **self.headers}.items() if value]


def on_client_core(target, command):
    command = list(map(str, command))
    return ["taskset", "-c", "0", *command] if PIN and target.server.pinned else command


def run(target, command, **more):
    done = subprocess.run(on_client_core(target, command), capture_output=True, text=True, **more)
    if done.returncode:
        raise SystemExit(f"{target.name} {target.path}: {command[0]} failed ({done.returncode}): {done.stdout[-500:]} {done.stderr[-500:]}")
    return done.stdout


def wrk(target, connections, seconds, script=None):
    headers = [word for line in target.header_lines() for word in ("-H", line)]
    more = ["-s", script] if script else []
    out = run(target, ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency", *headers, *more, target.url], timeout=seconds + 90)
    wrong = re.search(r"Non-2xx.*|Socket errors.*", out)
    if wrong:
        raise SystemExit(f"{target.name} {target.path}: {wrong[0]}")
    centile = lambda of: (lambda number, unit: float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit])(
        *re.search(rf"{of}%\s+([\d.]+)(us|ms|s|m)", out).groups())
    count = int(re.search(r"(\d+) requests in", out)[1])
    if not count:
        raise SystemExit(f"{target.name} {target.path}: no answer in {seconds} s")
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "count": count, "p50": centile(50), "p99": centile(99)}


def wrk_list(target, connections, seconds, lines, method="GET"):
    """Each connection takes the next line in turn: a path, and for another method than GET a body after a tab. None is
    taken twice; a server that is faster than the list is long has the row fail rather than flattered."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, tempfile.NamedTemporaryFile("w") as listed:
        listed.write("\n".join(lines) + "\n")
        listed.flush()
        script.write(f"""local lines = io.open("{listed.name}")
function request()
  local line = lines:read() or "/the-list-is-used-up"
  local path, body = line:match("^([^\\t]*)\\t?(.*)$")
  return wrk.format("{method}", path, nil, body ~= "" and body or nil)
end
""")
        script.flush()
        return wrk(target, connections, seconds, script.name)


def h2load(target, clients, streams, seconds, rate=None):
    """HTTP/2, or HTTP/1.1 at a fixed rate when one is given. Gives also each request's start and time."""
    headers = [word for line in target.header_lines() for word in ("-H", line)]
    more = ["--h1", f"--rps={rate / clients}"] if rate else []
    with tempfile.NamedTemporaryFile() as log:
        command = ["h2load", "-t1", f"-c{clients}", f"-m{streams}", f"-D{seconds}", f"--log-file={log.name}", *more, *headers, target.url]
        out = run(target, command, timeout=seconds + 60)
        lines = [tuple(map(int, line.split(b"\t")[:3])) for line in log.read().splitlines()]
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", out)
    bad = [status for _, status, _ in lines if status != 200]
    if bad or not lines or any(map(int, failed.groups())):
        raise SystemExit(f"{target.name} {target.path}: {failed[0] if failed else out[-500:]}, answers {sorted(set(bad))}")
    requests = [(start / 1e6, took / 1e6) for start, _, took in lines]
    return {"rate": len(requests) / seconds, "count": len(requests), **centiles([took for _, took in requests]), "requests": requests}


def oha(target, connections, seconds, rate):
    """HTTP/1.1 at a fixed rate, each request timed from when it should have been sent. A request that fails fails the row."""
    headers = [word for line in target.header_lines() for word in ("-H", line)]
    command = [OHA_PROGRAM, "--no-tui", "-z", f"{seconds}s", "-c", str(connections), "-q", str(rate), "--latency-correction",
               "--output-format", "json", *headers, target.url]
    said = json.loads(run(target, command, timeout=seconds + 60))
    statuses, errors = said["statusCodeDistribution"], said["errorDistribution"]
    # What was on its way at the end is no failure.
    errors.pop("aborted due to deadline", None)
    if errors or set(statuses) != {"200"}:
        raise SystemExit(f"{target.name} {target.path}: answers {statuses}, errors {errors}")
    times = said["latencyPercentiles"]
    return {"rate": statuses["200"] / seconds, "count": statuses["200"], "p50": times["p50"], "p99": times["p99"]}


def centiles(times):
    times = sorted(times)
    at = lambda part: times[min(len(times) - 1, int(len(times) * part))]
    return {"p50": at(0.5), "p99": at(0.99)}


def curl_command(target, paths, parallel=1):
    options = [f'header = "{line}"' for line in target.header_lines()]
    text = "\n".join([*options, *[f'url = "{target.origin}{path}"\noutput = "/dev/null"' for path in paths]])
    command = ["curl", "--silent", "--fail", "--insecure", "--http1.1", "--noproxy", "*", "--config", "-",
               "--write-out", "%{http_code} %{size_download} %{time_starttransfer} %{time_total}\\n"]
    return command + (["--parallel", "--parallel-max", str(parallel)] if parallel > 1 else []), text


def curls(target, batches, sizes, parallel=1):
    """A curl for each batch of paths, all at once. Gives what curl says of each fetch, and the wall time of all."""
    started = time.time()
    commands = [curl_command(target, paths, parallel) for paths in batches]
    running = []
    for command, text in commands:
        process = subprocess.Popen(on_client_core(target, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
        running.append(process)
    outs = [process.communicate(timeout=300) for process in running]
    took = time.time() - started
    rows = [line.split() for out, _ in outs for line in out.splitlines()]
    got = sorted(int(row[1]) for row in rows)
    if got != sorted(sizes) or any(row[0] != "200" for row in rows):
        raise SystemExit(f"{target.name}: a fetch went wrong: {outs[0][0][:300]} {outs[0][1][:300]}; {len(got)} of {len(sizes)} came")
    return [(float(first), float(total)) for _, _, first, total in rows], took


def fetch_each(target, files, parallel=1):
    """Fetches each file once; counted in files."""
    times, took = curls(target, [[path for path, _ in files]], [size for _, size in files], parallel)
    wall = took if parallel > 1 else sum(total for _, total in times)
    return {"rate": len(files) / wall, "count": len(files), **centiles([total for _, total in times]), "first": centiles([first for first, _ in times])["p50"]}


def streams(target, size, times, parallel=1):
    """Fetches one large file again and again on each of `parallel` connections; counted in gigabytes."""
    answers, took = curls(target, [[target.path] * times] * parallel, [size] * times * parallel)
    wall = took if parallel > 1 else sum(total for _, total in answers)
    sent = size * times * parallel / GB
    return {"rate": sent / wall, "count": sent, **centiles([total for _, total in answers])}


def touch(most=1 << 30):
    """Writes to memory and gives it back. In a virtual machine the host provides a page when it is first touched, at ten times
    the cost of using it again, and takes it away again when it has been free for a while; who makes a file of large pages gets
    untouched ones and would pay for everybody."""
    free = int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) << 10
    with mmap.mmap(-1, min(most, free // 4) & ~4095) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, len(memory), 4096):
            memory[page] = 1


class Watch(threading.Thread):
    """Looks at the anonymous memory of a server while a load runs."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.before = self.most = server.memory("RssAnon")

    def run(self):
        while not self.over.wait(0.05):
            self.most = max(self.most, self.server.memory("RssAnon"))

    def grown(self):
        self.over.set()
        self.join()
        return max(self.most, self.server.memory("RssAnon")) - self.before


def busy():
    fields = [int(number) for number in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


def measure(target, load, others, settle=False):
    """One load on one target: what the load says, CPU per unit, anonymous memory gained, and how busy the server, the load and
    everybody else were."""
    server = target.server
    def loading():
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
    def own():
        return loading() + sum(other.cpu() for other in others if other is not server)
    watch = Watch(server)
    watch.start()
    everyone, ours, loaded, spent, started = busy(), own(), loading(), server.cpu(), time.time()
    result = load(target)
    loaded, in_load = loading() - loaded, time.time() - started
    if settle:
        server.settle()
    took = time.time() - started
    used = server.cpu() - spent
    result["cpu"] = used / result["count"]
    result["load_cores"], result["server_cores"] = loaded / in_load, used / took
    result["foreign"] = max(0.0, (busy() - everyone - used - (own() - ours)) / took)
    result["grown"] = watch.grown()
    result.pop("requests", None)
    return result


def profiled(world, target, load):
    """The load under perf, which looks a thousand times a second at what the server does. Leaves a list of functions in `results/`."""
    data, listed = world.folder / "perf.data", ROOT / f"bench/results/profile-{world.row.name}.txt"
    command = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F", "997", "-p", str(target.server.process.pid), "-o", data]
    watching = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        return load(target)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(60)
        shown = ["perf", "report", "--stdio", "--no-children", "--percent-limit", "0.3", "--sort", "dso,symbol", "-i", data]
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(subprocess.run(shown, capture_output=True, text=True, timeout=300).stdout)
        say(f"  its profile is in {listed.relative_to(ROOT)}")


def alternate(world, targets, load, again=2, settle=False, rounds=None, before=lambda: None):
    """Rounds in turn, order reversed each time, one before the first thrown away; noisy ones are repeated where the load may
    be (`again`). `load` is given the target and the number of the round, the one thrown away being 0; `before` comes first and is
    not measured."""
    say(f"  {world.row.name}: {', '.join(target.name for target in targets)}")
    results = {target.name: [] for target in targets}
    rounds = rounds or world.options.rounds
    for number in range(rounds + 1):
        for target in targets if number % 2 else targets[::-1]:
            def once():
                before()
                work = lambda target: load(target, number)
                if world.options.profile and number == rounds and target is targets[-1]:
                    return measure(target, lambda target: profiled(world, target, work), world.servers, settle)
                return measure(target, work, world.servers, settle)
            best = once()
            for _ in range(again if 0 < number and not world.options.profile else 0):
                if best["foreign"] <= QUIET_CORES:
                    break
                best = min(best, once(), key=lambda result: result["foreign"])
            if number:
                results[target.name].append(best)
    return results


def once(world, target, load):
    """For what cannot be done twice."""
    say(f"  {world.row.name}: {target.name}")
    return {target.name: [measure(target, load, world.servers, settle=True)]}
