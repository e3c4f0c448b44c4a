"""Attack the commands and the readers, and count what held: kills, damaged files, several processes, full disks.

    python -m tests.benchmarks.robustness --out tests/benchmarks/results/robustness.json    # 20 minutes on 2 idle cores
    python -m tests.benchmarks.robustness --share 0.1                                       # a quick look
    python -m tests.benchmarks.robustness --only kills/pretrain/7                           # a trial again

Exits with 1 if anything did not hold. Everything lies in a temporary folder: after Ctrl-C, rerun to start again.

- **kills**: a command and all its processes get SIGKILL at a random moment of its duration, and in a third of the
  trials a second time when it is rerun. Rerun to its end, it must leave exactly what an undisturbed run leaves (except
  dates, times, speeds and names), and nothing else. After each kill, a final name is absent or complete.
- **damaged**: see `attacked_files.py`.
- **together**: three processes start a command on one folder at once: one must work, the others must say in one line
  why they do not, exit with 2 and change nothing. In separate folders, all must work.
- **full disk**: a command writes to a disk (tmpfs) that is too small: it must print one line, exit with 2 and leave
  nothing half-written; with room, it must then end as usual. Not tried without the right to mount: run
  `unshare --user --map-root-user --mount ...`.

Importing torch takes longer than most of these commands run. So a *warm* process imports everything and forks a child
for each call, which runs the command as the command line does; trials named `fresh` start a new interpreter. The seed
determines moments, files and damage; on a busy machine, a repeated kill may hit another statement.
"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_scripts.system.command_line import run, setting
from data_scripts.system.whole_files import write_json
from tests.benchmarks import attacked_files
from tests.benchmarks.attacked_files import FORMATS
from tests.benchmarks.left_files import differences, digest, half_written, refusal_problems, tail_of
from tests.benchmarks.warm_process import WarmProcess, kill_group
from tests.loopback_hub import LoopbackHub

PROJECT = Path(__file__).parents[2]
IMPORTED_LATER = (  # by the commands' `main`
    *("train.experiments.experiment", "train.encoding.bulk_encoding", "train.publishing.publication"),
    *("train.classification.evaluation", "data_scripts.writing.dataset_build", "data_scripts.hub.dataset_publication"),
)
WHEN_INTERRUPTED = "Nothing was written."  # what Ctrl-C says
NUM_LANES, NUM_TOGETHER = 2, 3  # trials at once; processes on one folder
FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.\-]+/)+")  # of this machine, which the results do not name
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "safetensors", "numpy", "pyarrow", "pillow", "pydicom")
Trial = Callable[[], list[str] | None]  # returns what did not hold; None: could not be tried
SHARES_OF_DISK = (0.05, 0.3, 0.7, 0.95)  # of what the command leaves


@dataclass(frozen=True)
class Command:
    """A command to attack. `{inputs}` is the folder of its inputs, `{name}` a name of its own."""

    module: str
    words: str
    outputs: tuple[str, ...]  # absent or complete at every moment
    compared: tuple[str, ...] = ()  # further files that must end as in an undisturbed run
    again: str = ""  # added when it is rerun
    repository: str = ""  # kind of repository that it publishes to
    kills: int = 12  # trials


CHECKPOINT = "--checkpoint {inputs}/run/checkpoint"
COMMANDS = {
    "build": Command(
        "data_scripts.build",
        "--source folder --raw {inputs}/raw --out built --num_proc 2 --pseudonym_key {inputs}/key",
        ("built",),
    ),
    "deidentify": Command(
        "data_scripts.deidentify",
        "--raw {inputs}/dicom --out clean --key_file {inputs}/key",
        ("clean", "clean.files.json"),
    ),
    "pretrain": Command(
        "train.pretrain",
        "{inputs}/run.yaml --output_dir run",
        ("run/checkpoint", "run/metrics.json", "run/predictions.parquet", "run/run.json"),
        compared=("run/history.jsonl",),
        again="--resume",
        kills=20,
    ),
    "finetune": Command(
        "train.finetune_classification",
        "{inputs}/finetune.yaml --output_dir tuned " + CHECKPOINT,
        ("tuned/checkpoint", "tuned/metrics.json", "tuned/predictions.parquet", "tuned/run.json"),
        compared=("tuned/history.jsonl",),
        again="--resume",
    ),
    "evaluate": Command(
        "train.evaluate_model",
        CHECKPOINT + " --dataset {inputs}/data --out measured --num_resamples 20",
        ("measured/metrics.json", "measured/predictions.parquet"),
    ),
    "encode": Command(
        "train.encode",
        CHECKPOINT + " --dataset {inputs}/data --out embeddings.parquet --batch_size 1",
        ("embeddings.parquet", "embeddings.parquet.json"),
    ),
    "compare": Command(
        "train.compare_systems",
        "{inputs}/experiment.yaml --out experiment",
        ("experiment/results.json", "experiment/experiment.json"),
        compared=("experiment/runs/*/predictions.parquet", "experiment/runs/*/history.jsonl"),
    ),
    "publish": Command(
        "train.publish",
        "--run run --repo_id tester/{name}",
        ("run/hub/model",),
        repository="model",
        kills=6,
    ),
    "publish_dataset": Command(
        "data_scripts.publish_dataset", "--dataset {inputs}/data --repo_id tester/{name}", (), repository="dataset"
    ),
}
FRESH = ("build", "encode", "pretrain")  # also killed in new interpreters
NUM_FRESH_KILLS = 2


@dataclass
class RobustnessArguments:
    """Attack the commands and the readers, and count what held."""

    out: str = setting("", "JSON file to write the counts to; nothing when empty.")
    only: list[str] = setting([], "Areas, targets or trials, such as kills, kills/build, kills/build/3; all if empty.")
    share: float = setting(1.0, "Share of the trials of each target, 0 to 1; at least one.")
    seed: int = setting(0, "Seed of moments, files and damage.")


@dataclass
class Campaign:
    """The folder of a campaign, its Hub, and how long undisturbed runs took."""

    folder: Path
    seed: int
    hub: LoopbackHub
    seconds: dict[str, float] = field(default_factory=dict)
    import_seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)  # by target
    lanes: threading.local = field(default_factory=threading.local)
    processes: list[WarmProcess] = field(default_factory=list)

    @property
    def warm(self) -> WarmProcess:
        """The warm process of this thread."""
        if not hasattr(self.lanes, "warm"):
            modules = [command.module for command in COMMANDS.values()]
            self.lanes.warm = WarmProcess([*modules, *IMPORTED_LATER])
            self.processes.append(self.lanes.warm)
        return self.lanes.warm

    def log(self, folder: Path) -> Path:
        return self.folder / "logs" / folder.name

    @contextmanager
    def trial(self, name: str) -> Iterator[Path]:
        """An empty folder, removed at the end."""
        folder = self.folder / "trials" / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, name: str, folder: Path, log: Path, more: str = "", fresh: bool = False) -> int:
        command, inputs = COMMANDS[name], self.folder / "inputs"
        if name == "publish" and not (folder / "run").exists():  # it writes into the folder of the run
            (folder / "run").mkdir()
            for path in (inputs / "run").iterdir():
                (folder / "run" / path.name).symlink_to(path)
        words = f"{command.words} {more}".format(inputs=inputs, name=own_name(folder))
        return self.warm.start(command.module, shlex.split(words), folder, log, fresh)

    def run(self, name: str, folder: Path, more: str = "", fresh: bool = False) -> int:
        return self.warm.wait(self.start(name, folder, self.log(folder), more, fresh))

    def problems_after_kill(self, name: str, folder: Path) -> list[str]:
        """What is half-written, here or on the Hub."""
        is_published = COMMANDS[name].repository and self.published(name, folder)
        problems = half_written(folder, COMMANDS[name].outputs, self.folder / "undisturbed" / name)
        return problems + (self.problems_on_hub(name, folder) if is_published else [])

    def problems_at_end(self, name: str, folder: Path) -> list[str]:
        """How the end differs from that of an undisturbed run."""
        command = COMMANDS[name]
        problems = differences(folder, (*command.outputs, *command.compared), self.folder / "undisturbed" / name)
        return problems + (self.problems_on_hub(name, folder) if command.repository else [])

    def problems_on_hub(self, name: str, folder: Path) -> list[str]:
        one, two = (self.published(name, where) for where in (folder, self.folder / "undisturbed" / name))
        changed = sorted({path for path, _ in one.items() ^ two.items()})
        return [f"the Hub has other {', '.join(changed[:3])} than after an undisturbed run"] if changed else []

    def published(self, name: str, folder: Path) -> dict[str, str]:
        """The files of a repository by their digests, its commits and tags; empty if nothing was published."""
        with self.hub.lock:
            repository = self.hub.repositories.get((COMMANDS[name].repository, f"tester/{own_name(folder)}"))
            if repository is None or not repository.messages:
                return {}
            own = own_name(folder).encode()
            files = {path: digest(content.replace(own, b"NAME")) for path, content in repository.files.items()}
            return {**files, "commits": str(repository.messages)}


def own_name(folder: Path) -> str:
    return digest(str(folder).encode())


def kill_trial(campaign: Campaign, name: str, number: int, num_trials: int, fresh: bool = False) -> list[str]:
    """Kill a command once or twice, rerun it to its end, and compare."""
    target = f"kills/{name}{' (fresh)' * fresh}"
    rng = random.Random(f"{campaign.seed}/{target}/{number}")
    duration = campaign.seconds[name] + campaign.import_seconds * fresh
    moments, more = [duration * (number + rng.random()) / num_trials], ""
    if rng.random() < 1 / 3:
        moments.append(duration * rng.random())
    with campaign.trial(f"{target.replace('/', ' ')} {number}") as folder:
        for moment in moments:
            pid = campaign.start(name, folder, campaign.log(folder), more, fresh)
            time.sleep(moment)
            kill_group(pid)
            code, more = campaign.warm.wait(pid), COMMANDS[name].again
            if code != -signal.SIGKILL:  # it had ended
                break
            campaign.kills[target] += 1
            if problems := campaign.problems_after_kill(name, folder):
                return [f"killed after {moment:.2f} of {duration:.2f} s: {problem}" for problem in problems]
        code = campaign.run(name, folder, more, fresh)
        problems = campaign.problems_at_end(name, folder)
        # It may say that everything is done already.
        if code and (problems or refusal_problems(code, campaign.log(folder))):
            problems.insert(0, f"rerun, it ended with exit code {code}: {tail_of(campaign.log(folder))}")
    when = f"killed after {' and '.join(f'{moment:.2f}' for moment in moments)} of {duration:.2f} s"
    return [f"{when}: {problem}" for problem in problems]


def together_trial(campaign: Campaign, name: str, own_folders: bool = False) -> list[str]:
    """Start a command several times at once, on one folder or each on its own."""
    rng, problems = random.Random(f"{campaign.seed}/together/{name}"), []
    with ExitStack() as stack:
        places = [f"together {name} {index}" for index in range(NUM_TOGETHER)]
        names = places if own_folders else places[:1]
        folders = [stack.enter_context(campaign.trial(f"{place}{' own' * own_folders}")) for place in names]
        logs, pids = [campaign.folder / "logs" / f"{place}{' own' * own_folders}" for place in places], []
        for index, log in enumerate(logs):
            pids.append(campaign.start(name, folders[index % len(folders)], log))
            time.sleep(rng.choice((0, 0, 0.05, 0.3)))
        codes = [campaign.warm.wait(pid) for pid in pids]
        for code, log in zip(codes, logs, strict=True):
            if code:
                problems += [f"exit code {code}: {tail_of(log)}"] if own_folders else refusal_problems(code, log, False)
        # Publishing again what the repository already has is no error.
        if not own_folders and (0 not in codes if COMMANDS[name].repository else codes.count(0) != 1):
            problems.append(f"{codes.count(0)} of {NUM_TOGETHER} processes worked, not one")
        return problems + [problem for folder in folders for problem in campaign.problems_at_end(name, folder)]


def disk_trial(campaign: Campaign, name: str, share: float) -> list[str] | None:
    """Run a command on a disk that is too small, then with room."""
    used = {path: path.stat().st_blocks / 2 for path in (campaign.folder / "undisturbed" / name).rglob("*")}
    kib = max(8, round(share * sum(used.values())))
    with campaign.trial(f"full disk {name} {share}") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return None
        try:
            code = campaign.run(name, folder)
            problems = refusal_problems(code, campaign.log(folder)) if code else []
            problems += campaign.problems_after_kill(name, folder)
            subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
            if code and (code := campaign.run(name, folder, COMMANDS[name].again)):
                problems.append(f"then with room: exit code {code}: {tail_of(campaign.log(folder))}")
            problems += [f"then with room: {problem}" for problem in campaign.problems_at_end(name, folder)]
            return [f"with {kib} KiB: {problem}" for problem in problems]
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def trials_of(campaign: Campaign, args: RobustnessArguments) -> dict[str, Trial]:
    """All trials of commands by their names, AREA/TARGET/NUMBER."""
    trials: dict[str, Trial] = {}
    for name, command in COMMANDS.items():
        num, fresh = command.kills, NUM_FRESH_KILLS * (name in FRESH)
        of_command: dict[str, list[Trial]] = {
            f"kills/{name}": [partial(kill_trial, campaign, name, n, num) for n in range(num)],
            f"kills/{name} (fresh)": [partial(kill_trial, campaign, name, n, fresh, True) for n in range(fresh)],
            f"together/{name}": [partial(together_trial, campaign, name)],
            f"together/{name} in own folders": [partial(together_trial, campaign, name, True)],
        }
        if command.outputs:
            of_command[f"full disk/{name}"] = [partial(disk_trial, campaign, name, share) for share in SHARES_OF_DISK]
        for target, of_target in of_command.items():
            for number in numbers_of(len(of_target), args.share):
                if is_wanted(f"{target}/{number}", args.only):
                    trials[f"{target}/{number}"] = of_target[number]
    return trials


def numbers_of(count: int, share: float) -> list[int]:
    """Spread a share of the trials, at least one, over all."""
    kept = max(1, round(share * count))
    return sorted({index * count // kept for index in range(kept)}) if count else []


def is_wanted(name: str, only: list[str]) -> bool:
    return not only or any(f"{name}/".startswith(f"{wanted}/") for wanted in only)


def make_inputs(campaign: Campaign) -> None:
    """Make the inputs of all commands: files, a dataset and a finished run."""
    inputs = campaign.folder / "inputs"
    attacked_files.write_inputs(inputs, campaign.seed)
    words = ["--source", "synthetic", "--num_patients", "24", "--out", "data"]
    ended(campaign, campaign.warm.start("data_scripts.build", words, inputs, campaign.log(inputs)), inputs)
    ended(campaign, campaign.start("pretrain", inputs, campaign.log(inputs)), inputs)


def run_undisturbed(campaign: Campaign, name: str) -> None:
    """Run a command undisturbed, for comparison, and time it."""
    folder = campaign.folder / "undisturbed" / name
    folder.mkdir()
    pid, started = campaign.start(name, folder, campaign.log(folder)), time.monotonic()
    ended(campaign, pid, folder)
    campaign.seconds[name] = time.monotonic() - started


def ended(campaign: Campaign, pid: int, folder: Path) -> None:
    if code := campaign.warm.wait(pid):
        raise RuntimeError(f"undisturbed, it ends with exit code {code}: {tail_of(campaign.log(folder))}")


def attack(args: RobustnessArguments, found: "Findings", folder: Path, hub: LoopbackHub) -> dict[str, float]:
    """Make the inputs, run the commands undisturbed, attack commands and readers; return the undisturbed seconds."""
    os.environ |= {**hub.environment(folder / "home"), "PYTHONPATH": str(PROJECT), "TMPDIR": str(folder / "tmp")}
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true"}
    campaign = Campaign(folder, args.seed, hub)
    for name in ("home", "logs", "tmp", "trials", "undisturbed"):
        (folder / name).mkdir()
    trials = trials_of(campaign, args)
    files = [
        f"{kind}/{number}"
        for kind, of_format in FORMATS.items()
        for number in numbers_of(of_format.count, args.share)
        if is_wanted(f"damaged/{kind}/{number}", args.only)
    ]
    commands = {name.split("/")[1].split(" ")[0] for name in trials} | {"encode"}  # whose file is damaged, too
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(NUM_LANES))
        stack.callback(lambda: [process.close() for process in campaign.processes])
        stack.callback(partial(pool.shutdown, wait=False, cancel_futures=True))
        started = time.monotonic()
        pool.submit(lambda: campaign.warm).result()
        campaign.import_seconds = time.monotonic() - started
        pool.submit(make_inputs, campaign).result()
        list(pool.map(partial(run_undisturbed, campaign), sorted(commands)))
        shutil.copy(folder / "undisturbed" / "encode" / "embeddings.parquet", folder / "inputs")
        bar = stack.enter_context(tqdm(total=len(trials) + len(files), desc="attacks", disable=None))
        futures = {pool.submit(trial): name for name, trial in trials.items()}
        for future in as_completed(futures):
            error = future.exception()
            found.add(futures[future], [f"the trial failed: {error!r}"] if error else future.result())
            bar.update()
        arguments = folder / "damaged", folder / "inputs", files, args.seed, NUM_LANES, bar.update
        for name, what, problem in attacked_files.attack_files(*arguments) if files else ():
            found.add(f"damaged/{name}", [f"{what}: {problem}"] if problem else [])
    for target, kills in campaign.kills.items():
        found.counts[target]["kills"] = kills
    return campaign.seconds


@dataclass
class Findings:
    """How many trials of each target held, and how to repeat those that did not."""

    seed: int
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, problems: list[str] | None) -> None:
        """Count a trial by what did not hold in it; None: it could not be tried."""
        of_target = self.counts[name.rpartition("/")[0]]
        of_target["not_tried" if problems is None else "tried"] += 1
        of_target["held"] += problems == []
        if problems:
            repeat = f"python -m tests.benchmarks.robustness --seed {self.seed} --only {shlex.quote(name)}"
            named = [FOLDERS.sub("", problem) for problem in problems[:5]]
            self.failures.append({"trial": name, "problems": named, "repeat": repeat})
            tqdm.write(f"did not hold: {name}: {problems[0][:300]}")


def main(args: RobustnessArguments) -> int:
    """Attack, count, and write the counts."""
    found, started = Findings(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder, LoopbackHub() as hub:
        seconds_undisturbed = attack(args, found, Path(folder), hub)
    content = {
        "command": shlex.join(["python", "-m", "tests.benchmarks.robustness", *sys.argv[1:]]).partition(" --out")[0],
        "date": date.today().isoformat(),
        "data": "made by the script: 24 drawn patients, 80 random images, 24 DICOM slices",
        "arguments": {"seed": args.seed, "share": args.share, "only": args.only},
        "seconds": round(time.monotonic() - started),
        "seconds_undisturbed": {name: round(seconds, 2) for name, seconds in seconds_undisturbed.items()},
        "num_processors": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "counts": {target: dict(numbers) for target, numbers in sorted(found.counts.items())},
        "failures": found.failures,
    }
    for target, numbers in content["counts"].items():
        print(f"{target}: {numbers.get('tried', 0)} tried, {numbers['held']} held")
    if args.out:
        write_json(Path(args.out), content)
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(run(main))
