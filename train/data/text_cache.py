"""Encode every text of a run once with a frozen text tower, keep the features on disk, and look them up by tokens.

Shapes: R distinct texts of a run, U texts of a batch, T tokens, d_T width of the text tower.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from data_scripts.system.whole_files import follow_umask, unfinished_file
from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.calibration_lumbarclip import current_digest

logger = logging.getLogger(__name__)

TEXT_FEATURES = "text_features"  # in the folder of a run, until it ends
TEXTS_AT_ONCE = 64  # on a GPU
SECONDS_UNTIL_BAR = 5

Tokens = tuple[int, ...]


class TextCache:
    """The pooled features z_T of all texts of a run, which its text tower, frozen, need not compute again.

    A text is its tokens: the features of an unknown one are an error. On a CPU the features stay on disk,
    memory-mapped; a GPU holds a copy.

    Args:
        token_ids: The tokens of each text, without padding; texts may repeat.
    """

    def __init__(self, token_ids: Iterable[Sequence[int]]) -> None:
        self.texts: list[Tokens] = sorted({tuple(tokens) for tokens in token_ids})
        # Odd factors: texts that differ in one token never have the same sum.
        random = torch.Generator().manual_seed(0)
        self._factors = torch.empty(max(map(len, self.texts)), dtype=torch.int64).random_(2**62, generator=random) | 1
        sums = [int((self._factors[: len(text)] * (torch.tensor(text) + 1)).sum()) for text in self.texts]
        self._sums, order = torch.tensor(sums).sort()
        assert len(set(sums)) == len(sums)  # 64 bits: never
        self.texts = [self.texts[place] for place in order.tolist()]
        self._features: Tensor | None = None

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # an average of the weights shares it

    def open(self, model: LumbarCLIPModel, folder: Path, accelerator: Accelerator) -> None:
        """Open the features in a folder, where the first process encodes the texts unless it already has.

        A file holds the features of these texts by these weights: for others there is another file.

        Raises:
            OSError: If the features cannot be written or read; on all processes.
        """
        found: list[Any] = [None]
        if accelerator.is_main_process:
            try:
                found = [self._find_or_encode(model, folder, accelerator)]
            except OSError as error:
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], OSError):
            raise found[0]
        self._features = _read(found[0])

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Look up texts, without waiting for their device.

        Args:
            input_ids: Tokens, padded on either side. Shape (U, T).
            attention_mask: 1 for tokens, 0 for padding. Shape (U, T).

        Returns:
            z_T. Shape (U, d_T), float32.

        Raises:
            RuntimeError: If a text is none of the run; on a GPU later, when the device gets there.
        """
        assert self._features is not None
        self._to(input_ids.device)
        places = (attention_mask.cumsum(dim=1) - 1).clamp(min=0, max=len(self._factors) - 1)
        sums = (self._factors[places] * (input_ids + 1) * attention_mask).sum(dim=1)  # modulo 2^64
        rows = torch.searchsorted(self._sums, sums).clamp(max=len(self._sums) - 1)
        is_known = (self._sums[rows] == sums) & (attention_mask.sum(dim=1) <= len(self._factors))
        torch._assert_async(is_known.all(), "A text was not encoded when the run began.")
        return self._features[rows]

    def _to(self, device: torch.device) -> None:
        assert self._features is not None
        if self._features.device != device:
            self._features, self._sums = self._features.to(device), self._sums.to(device)
            self._factors = self._factors.to(device)

    def _find_or_encode(self, model: LumbarCLIPModel, folder: Path, accelerator: Accelerator) -> Path:
        tower = _tower_digest(model)
        name = hashlib.sha256(f"{tower} {self.texts}".encode()).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if path.exists():
            try:
                assert _read(path).shape[0] == len(self.texts)
                return path
            except (SafetensorError, OSError) as error:
                logger.warning("Cannot read the text features %s (%s); encoding the texts again.", path, error)
        with accelerator.autocast():
            features = encode_each(model, self.texts, tower)
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished_file(path) as unfinished:
            save_file({"features": features}, unfinished)
            follow_umask(unfinished)
        return path


# The texts and features of the last tower: the runs of an experiment encode the same texts.
_last: tuple[str, dict[Tokens, Tensor]] = ("", {})


def encode_each(model: LumbarCLIPModel, texts: Sequence[Tokens], tower: str) -> Tensor:
    """Compute the pooled features of texts that do not depend on the others: unpadded, and on a CPU one by one.

    Args:
        model: Its text tower in evaluation mode.
        texts: Tokens of R distinct texts.
        tower: Digest of the weights of the text tower.

    Returns:
        z_T. Shape (R, d_T), float32, on the CPU.
    """
    global _last
    known = _last[1] if _last[0] == tower else {}
    missing = sorted((text for text in texts if text not in known), key=len)
    at_once, num_known = (1 if model.device.type == "cpu" else TEXTS_AT_ONCE), len(known)
    with (
        torch.no_grad(),
        tqdm(total=len(missing), desc="encoding texts", unit=" texts", delay=SECONDS_UNTIL_BAR) as bar,
    ):
        while (done := len(known) - num_known) < len(missing):
            batch = [text for text in missing[done : done + at_once] if len(text) == len(missing[done])]
            tokens = torch.tensor(batch, device=model.device)
            features = model.get_text_features(tokens, torch.ones_like(tokens), project=False).pooler_output
            known |= zip(batch, features.float().cpu(), strict=True)
            bar.update(len(batch))
    _last = tower, known
    return torch.stack([known[text] for text in texts])


def _tower_digest(model: LumbarCLIPModel) -> str:
    """Digest what a text's features depend on besides its tokens: weights, pooling and settings of the text tower."""
    settings = f"{model.config.text_pooling} {model.text_model.config.to_json_string()}"
    weights = current_digest(model.text_model, model.config)
    return hashlib.sha256(f"{weights} {settings}".encode()).hexdigest()


def _read(path: Path) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("features")  # memory-mapped
