"""Loads, and the alternating rounds that make two servers comparable on a machine that is never quite quiet."""
import mmap, os, pathlib, re, subprocess, time

from servers import PIN, TICK, say

QUIET_CORES = 0.12


def on_client_core(command):
    return ["taskset", "-c", "0", *command] if PIN else command


def wrk(server, path, headers, connections, seconds):
    options = [word for name, value in {**server.headers, **headers}.items() for word in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *options, server.origin + path]
    out = subprocess.run(on_client_core(command), capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    wrong = re.search(r"Non-2xx.*|Socket errors.*", out)
    if wrong:
        raise SystemExit(f"{server.name} {path}: {wrong[0]}")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    count = int(re.search(r"(\d+) requests in", out)[1])
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "count": count, "p99": float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]}


def curl(server, files, parallel):
    """Fetches each file once; the rate is files per second, p99 that of the times of single fetches."""
    lines = [f'url = "{server.origin}{server.prefix()}{path}"\noutput = "/dev/null"' for path, _ in files]
    options = [f'header = "{name}: {value}"' for name, value in server.headers.items()]
    text = "\n".join(options + lines)
    command = ["curl", "--silent", "--fail", "--noproxy", "*", "--config", "-", "--write-out", "%{http_code} %{size_download} %{time_total}\\n"]
    command += ["--parallel", "--parallel-max", str(parallel)] if parallel > 1 else []
    started = time.time()
    done = subprocess.run(on_client_core(command), input=text, capture_output=True, text=True, timeout=300)
    took = time.time() - started
    rows = [line.split() for line in done.stdout.splitlines()]
    sizes = sorted(int(size) for _, size, _ in rows)
    if len(rows) != len(files) or any(code != "200" for code, _, _ in rows) or sizes != sorted(size for _, size in files):
        raise SystemExit(f"{server.name}: a cold fetch went wrong: {done.stdout[:500]} {done.stderr[:500]}")
    times = sorted(float(seconds) * 1000 for _, _, seconds in rows)
    return {"rate": len(files) / took, "count": len(files), "p99": times[min(len(times) - 1, int(len(times) * 0.99))]}


def touch(most=2 << 30):
    """Writes to memory and gives it back. In a virtual machine the host provides a page when it is first touched, at ten times
    the cost of using it again; who makes a file of large pages gets untouched ones and would pay for everybody."""
    free = int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) << 10
    with mmap.mmap(-1, min(most, free // 4) & ~4095) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, len(memory), 4096):
            memory[page] = 1


def busy():
    fields = [int(number) for number in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


def measure(server, load, others):
    """One load on one server: rate, p99, CPU per request, and how busy everybody else was meanwhile."""
    def own():
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system + sum(other.cpu() for other in others)
    everyone, ours, spent, started = busy(), own(), server.cpu(), time.time()
    result = load()
    took = time.time() - started
    used = server.cpu() - spent
    result["cpu"] = used / result["count"] * 1e6
    result["foreign"] = max(0.0, (busy() - everyone - used - (own() - ours)) / took)
    return result


def alternate(title, servers, load, rounds, others, again=2):
    """Rounds in turn, order reversed each time; noisy ones are repeated where the load may be (`again`)."""
    say(f"  {title}: {', '.join(server.name for server in servers)}")
    results = {server.name: [] for server in servers}
    for number in range(-1, rounds):
        for server in servers if number % 2 == 0 else servers[::-1]:
            best = measure(server, lambda: load(server, number + 1), others)
            for _ in range(again if number >= 0 else 0):
                if best["foreign"] <= QUIET_CORES:
                    break
                other = measure(server, lambda: load(server, number + 1), others)
                best = min(best, other, key=lambda result: result["foreign"])
            if number >= 0:
                results[server.name].append(best)
    return results
