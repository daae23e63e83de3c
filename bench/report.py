"""The table, and the file that keeps what it was made of."""
import json, os, pathlib, platform, re, statistics, subprocess, time

from install import ROOT
from loads import QUIET_CORES
from servers import PIN


def machine():
    model = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) >> 20
    control = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {"processor": model[1] if model else platform.machine(), "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release(),
            "tcp": control, "pinned": bool(PIN)}


def commit():
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "src", "Cargo.toml") else "")


def scaled(value, steps, base=1000.0):
    for unit in steps[:-1]:
        if abs(value) < base:
            return f"{value:.3g} {unit}"
        value /= base
    return f"{value:.3g} {steps[-1]}"


def seconds(value):
    return f"{value * 1e6:.3g} µs" if abs(value) < 1e-3 else f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"


def size(value):
    return scaled(value, ["B", "KB", "MB", "GB"], 1024.0)


def number(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


# How a figure is written, and what it is called, where its own name does not say so.
WRITTEN = {
    "cpu": (seconds, "CPU"), "p50": (seconds, "p50"), "p99": (seconds, "p99"), "took": (seconds, "time"), "first": (seconds, "first byte"),
    "start": (seconds, "start"), "grown": (size, "memory gained"), "memory": (size, "memory"),
    "gets": (number, "upstream fetches"), "right": (number, "right bodies"), "fetched": (number, "upstream bytes"),
}


def middle(rounds, figure):
    return statistics.median(one[figure] for one in rounds)


def noisy(servers):
    """Whether more than a third of the rounds could not be had without others using the machine."""
    foreign = [one["foreign"] for rounds in servers.values() for one in rounds if "foreign" in one]
    return bool(foreign) and sum(used > QUIET_CORES for used in foreign) > len(foreign) / 3


def wanted(goal):
    write, name = WRITTEN.get(goal.figure, (number, goal.figure))
    bound = lambda value: f"{value:g} ×" if goal.against and not goal.difference else write(value)
    compared = f" {goal.against}" if goal.against else ""
    aim = f" [{bound(goal.aim)}]" if goal.aim is not None else ""
    sign, floor = ("≥", goal.least) if goal.least is not None else ("≤", goal.most)
    whose = "" if goal.of == "packhouse" else f"{goal.of}: "
    return f"{whose}{name} {sign} {'+' if goal.difference else ''}{bound(floor)}{compared}{aim}"


def aligned(lines):
    """A table that can be read as it is and pasted into Markdown. The first line is the heading; three columns are text."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    cell = lambda n, text: text.ljust(widths[n]) if n < 3 else text.rjust(widths[n])
    rule = ["-" * widths[n] if n < 3 else "-" * (widths[n] - 1) + ":" for n in range(len(widths))]
    return "\n".join("| " + " | ".join(cell(n, text) for n, text in enumerate(line)) + " |" for line in [lines[0], rule, *lines[1:]])


def goals_table(rows, result):
    lines = [("#", "row", "goal", "ours", "ratio", "spread", "CPU", "memory", "verdict")]
    for row in rows:
        done = result["rows"].get(row.name, {"failed": "not run"})
        for goal in row.goals:
            if "failed" in done:
                lines.append((str(row.number), row.name, wanted(goal), "", "", "", "", "", "not run"))
                continue
            servers, judged = done["servers"], goal.judged(done["servers"])
            rounds = servers.get(goal.of, [{}])
            write = WRITTEN.get(goal.figure, (number, ""))[0]
            ours = write(middle(rounds, goal.figure)) if goal.figure in rounds[0] else ""
            bare = write if not goal.against or goal.difference else lambda value: f"{value:.2f}"
            figure, spread = (bare(judged["figure"]), f"{bare(judged['low'])} – {bare(judged['high'])}") if "figure" in judged else ("", "")
            cpu = f"{seconds(middle(rounds, 'cpu'))}/{row.unit}" if "cpu" in rounds[0] else ""
            peak = done["memory"].get("packhouse")
            verdict = judged["verdict"] + (", noisy" if noisy(servers) else "")
            lines.append((str(row.number), row.name, wanted(goal), ours, figure, spread, cpu, size(peak) if peak else "", verdict))
    return aligned(lines) if len(lines) > 1 else ""


def compared_with(row, name, servers):
    """Whom a server of a row is held against: whom a goal says, else the first one."""
    named = [goal.against for goal in row.goals if goal.of == name and goal.against in servers]
    return servers[named[0]] if named else next(iter(servers.values()))


def servers_table(rows, result):
    lines = [("#", "row", "server", "per s", "ratio", "spread", "p50", "p99", "CPU", "ratio", "server", "load", "foreign", "memory")]
    for row in rows:
        for name, rounds in result["rows"].get(row.name, {}).get("servers", {}).items():
            if "rate" not in rounds[0]:
                continue
            base = compared_with(row, name, result["rows"][row.name]["servers"])
            has = lambda figure: figure in rounds[0]
            held = lambda figure: f"{statistics.median(one[figure] / max(other[figure], 1e-12) for one, other in zip(rounds, base)):.2f}" \
                if has(figure) and figure in base[0] else ""
            rates = sorted(one["rate"] for one in rounds)
            rate = f"{number(middle(rounds, 'rate'))} {row.unit}"
            spread = f"{rates[0] / middle(rounds, 'rate'):.2f}–{rates[-1] / middle(rounds, 'rate'):.2f}"
            time_of = lambda figure: seconds(middle(rounds, figure)) if has(figure) else ""
            cores = lambda figure: f"{middle(rounds, figure):.2f}" if has(figure) else ""
            peak = result["rows"][row.name]["memory"].get(name)
            lines.append((str(row.number or ""), row.name, name, rate, held("rate"), spread, time_of("p50"), time_of("p99"), time_of("cpu"), held("cpu"),
                          cores("server_cores"), cores("load_cores"), cores("foreign"), size(peak) if peak else ""))
    return aligned(lines) if len(lines) > 1 else ""


def table(rows, result):
    about = result["machine"]
    versions = {name: version for row in result["rows"].values() for name, version in row.get("versions", {}).items()}
    lines = [f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, {about['tcp']}",
             f"commit {result['commit']}, {result['date']}, {result['rounds']} rounds of {result['seconds']} s",
             ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))]
    tables = [goals_table(rows, result), servers_table(rows, result)]
    failed = [f"{row.name} was not run: {result['rows'][row.name]['failed']}" for row in rows if "failed" in result["rows"].get(row.name, {})]
    notes = [f"{row.name}: {note}" for row in rows for note in result["rows"].get(row.name, {}).get("notes", [])]
    return "\n\n".join(part for part in ["\n".join(lines), *tables, "\n".join([*notes, *failed])] if part)


def keep(result, suffix):
    folder = ROOT / "bench/results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M')}-{suffix}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path
