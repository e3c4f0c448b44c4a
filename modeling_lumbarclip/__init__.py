"""LumbarCLIP for transformers: configuration, processor and model.

Importing a class from here registers all of them with the Auto classes; `import modeling_lumbarclip` alone does not,
and does not import torch. A saved checkpoint carries these files, so that it loads with `trust_remote_code=True` where
the package is not installed: they are flat siblings that import each other and nothing else of the project.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_lumbarclip import LumbarCLIPConfig
    from .image_processing_lumbarclip import LumbarCLIPImageProcessor
    from .modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
    from .modeling_lumbarclip_classification import LumbarCLIPForImageClassification
    from .modeling_lumbarclip_segmentation import LumbarCLIPForSemanticSegmentation
    from .processing_lumbarclip import LumbarCLIPProcessor

__all__ = [
    "LumbarCLIPConfig",
    "LumbarCLIPForImageClassification",
    "LumbarCLIPForSemanticSegmentation",
    "LumbarCLIPImageProcessor",
    "LumbarCLIPModel",
    "LumbarCLIPOutput",
    "LumbarCLIPProcessor",
]


def register_auto_classes() -> list[ModuleType]:
    """Register LumbarCLIP with the Auto classes, which then ignore the code of checkpoints; return the modules."""
    names = ("configuration", "image_processing", "processing", "modeling")
    heads = ("classification", "segmentation")
    modules = (*(f"{name}_lumbarclip" for name in names), *(f"modeling_lumbarclip_{head}" for head in heads))
    return [importlib.import_module(f"{__name__}.{module}") for module in modules]  # each registers its class


def __getattr__(name: str) -> Any:
    """Load the classes when one is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return next(getattr(module, name) for module in register_auto_classes() if hasattr(module, name))
