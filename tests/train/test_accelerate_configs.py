"""The configs of Accelerate: each is what Accelerate reads, its command works, and two processes are two."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "train" / "configs" / "accelerate"
CONFIGS = {  # distributed type, machines, processes
    "one_gpu.yaml": ("NO", 1, 1),
    "several_gpus.yaml": ("MULTI_GPU", 1, 4),
    "several_machines.yaml": ("MULTI_GPU", 2, 8),
    "cpu_two_processes.yaml": ("MULTI_GPU", 1, 2),
}
SHOW_PROCESS = """
from accelerate import Accelerator
accelerator = Accelerator()
print(f"process {accelerator.process_index} of {accelerator.num_processes} on {accelerator.device.type}\\n", flush=True)
accelerator.wait_for_everyone()  # one that ends while the other still connects breaks its connection
accelerator.end_training()
"""


def command_of(name):
    """Environment and words of the command in the head of a config."""
    (command,) = re.findall(r"^#     (.*accelerate launch .*)$", (FOLDER / name).read_text(), flags=re.M)
    words = shlex.split(command)
    start = words.index("accelerate")
    return dict(word.split("=", 1) for word in words[:start]), words[start + 2 :]


def test_every_config_is_known_here():
    assert {path.name for path in FOLDER.iterdir()} == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_reads_the_config_and_the_command_of_its_head(name):
    config = load_config_from_file(str(FOLDER / name))
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == CONFIGS[name]
    _, words = command_of(name)
    args = launch_command_parser().parse_args(words)
    assert PROJECT / args.config_file == FOLDER / name
    assert args.training_script == "train/pretrain.py"
    assert (PROJECT / args.training_script_args[0]).exists()
    if config.num_machines > 1:
        assert args.main_process_ip and args.machine_rank is not None and config.main_process_port


@pytest.mark.slow
def test_two_processes_on_a_cpu_are_two(tmp_path):
    script = tmp_path / "show_process.py"
    script.write_text(SHOW_PROCESS)
    environment, words = command_of("cpu_two_processes.yaml")
    launch = words[: words.index("train/pretrain.py")]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch, str(script)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"process \d of \d on [a-z]+", done.stdout)) == [
        "process 0 of 2 on cpu",
        "process 1 of 2 on cpu",
    ]
