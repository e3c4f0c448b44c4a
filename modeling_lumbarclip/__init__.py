"""LumbarCLIP for transformers: configuration, processor and model.

Importing the package makes the Auto classes know it; a saved checkpoint carries these files along, so that it loads
with `trust_remote_code=True` where the package is not installed. The files are therefore flat siblings that import
each other and nothing else of the project.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)

from .configuration_lumbarclip import LumbarCLIPConfig
from .image_processing_lumbarclip import LumbarCLIPImageProcessor
from .modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from .processing_lumbarclip import LumbarCLIPProcessor

AutoConfig.register("lumbarclip", LumbarCLIPConfig)
AutoModel.register(LumbarCLIPConfig, LumbarCLIPModel)
AutoModelForZeroShotImageClassification.register(LumbarCLIPConfig, LumbarCLIPModel)
AutoImageProcessor.register(LumbarCLIPConfig, LumbarCLIPImageProcessor)
AutoProcessor.register(LumbarCLIPConfig, LumbarCLIPProcessor)

LumbarCLIPConfig.register_for_auto_class()
LumbarCLIPModel.register_for_auto_class("AutoModel")
LumbarCLIPImageProcessor.register_for_auto_class()
LumbarCLIPProcessor.register_for_auto_class()

__all__ = [
    "LumbarCLIPConfig",
    "LumbarCLIPImageProcessor",
    "LumbarCLIPModel",
    "LumbarCLIPOutput",
    "LumbarCLIPProcessor",
]
