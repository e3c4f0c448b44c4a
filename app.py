"""Try a LumbarCLIP checkpoint in the browser. A Hub Space runs this file, too.

    python app.py --checkpoint runs/demo/checkpoint
    python app.py --checkpoint USER/MODEL --index embeddings.parquet --port 7861

Research use only. Uploads are deleted as soon as they are read, and the page needs no network.
"""

import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from data_scripts.system.command_line import run, setting

HERE = Path(__file__).parent


@dataclass
class AppArguments:
    """Try a LumbarCLIP checkpoint in the browser."""

    checkpoint: str = setting("", "Checkpoint folder, or Hub id; by default $MODEL_ID, or the model of the Space.")
    index: str = setting("", "Parquet of train/encode.py with reports to search; by default that of the Space, if any.")
    port: int | None = setting(None, "Port to listen on; by default the first free port from 7860.")


def main(args: AppArguments) -> None:
    """Load the checkpoint, and serve the page until interrupted."""
    if find_spec("gradio") is None:
        raise ImportError("The app needs the package gradio: pip install 'lumbarclip[app]', or `make app` in a clone.")
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # before they are imported
    from train.checkpoints.onnx_export import weights_sha256
    from train.web_app.answers import Reader, open_reader
    from train.web_app.interface import build_page
    from train.web_app.receiving import upload_folder
    from train.web_app.report_index import read_index
    from train.web_app.serving import launch_settings

    of_space, revision, index_of_space = content_of_space(HERE / "README.md")
    chosen = args.checkpoint or os.environ.get("MODEL_ID")
    name = chosen or of_space
    if not name:
        raise ValueError("No checkpoint: name one with --checkpoint, such as runs/demo/checkpoint, or set MODEL_ID.")
    reader = open_reader(name, None if chosen else revision)
    index_path = args.index or (index_of_space and HERE / index_of_space)
    if index_path and not isinstance(reader, Reader):
        raise ValueError(f"{name} is a classifier, which does not compare images with reports: leave --index out.")
    index = read_index(Path(index_path), weights_sha256(reader.model)) if index_path else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leave the `with` block: what was uploaded goes with it
    with upload_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        page = build_page(reader, display_name(name), index)
        _, address, _ = page.launch(server_port=args.port, prevent_thread_lock=True, **launch_settings())
        print(f"Research use only. Open {address} in a browser; Ctrl-C ends the app.", flush=True)
        page.block_thread()


def content_of_space(readme: Path) -> tuple[str, str | None, str]:
    """Read from the card of a Space its first model, the version of it (None: the newest), and the file of its reports.

    Names that the card does not have are empty.
    """
    from huggingface_hub import metadata_load

    from train.web_app.answers import MODEL_REVISION
    from train.web_app.report_index import REPORTS_INDEX

    metadata = (metadata_load(readme) if readme.exists() else None) or {}
    models = metadata.get("models") or [""]
    return models[0], metadata.get(MODEL_REVISION), metadata.get(REPORTS_INDEX) or ""


def display_name(checkpoint: str) -> str:
    """Name a checkpoint on the page: a Hub id unchanged, a folder without its path."""
    folder = Path(checkpoint)
    if not folder.is_dir() and not folder.is_absolute():
        return checkpoint
    folder = folder.resolve()
    return folder.parent.name if folder.name == "checkpoint" else folder.name


if __name__ == "__main__":
    sys.exit(run(main))
