"""LumbarCLIP for transformers: configuration, processor and model.

`from modeling_lumbarclip import` one of the classes makes the Auto classes know them all, and importing one from its
own file, that one; `import modeling_lumbarclip` alone does not, since data preparation needs the text functions and no
torch. A saved checkpoint carries these files along, so that it loads with `trust_remote_code=True` where the package is
not installed. The files are therefore flat siblings that import each other and nothing else of the project.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_lumbarclip import LumbarCLIPConfig
    from .image_processing_lumbarclip import LumbarCLIPImageProcessor
    from .modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
    from .modeling_lumbarclip_classification import LumbarCLIPForImageClassification
    from .processing_lumbarclip import LumbarCLIPProcessor

__all__ = [
    "LumbarCLIPConfig",
    "LumbarCLIPForImageClassification",
    "LumbarCLIPImageProcessor",
    "LumbarCLIPModel",
    "LumbarCLIPOutput",
    "LumbarCLIPProcessor",
]


# Each file registers its class when it is imported.
MODULES = (
    "configuration_lumbarclip",
    "image_processing_lumbarclip",
    "processing_lumbarclip",
    "modeling_lumbarclip",
    "modeling_lumbarclip_classification",
)


def register_auto_classes() -> None:
    """Make the Auto classes of transformers know LumbarCLIP; from then on they override the code of checkpoints."""
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")


def __getattr__(name: str) -> Any:
    """Load the classes when one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register_auto_classes()
    for module in MODULES:
        if hasattr(sys.modules[f"{__name__}.{module}"], name):
            return getattr(sys.modules[f"{__name__}.{module}"], name)
    raise AssertionError(name)
