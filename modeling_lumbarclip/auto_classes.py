"""Importing this module makes the Auto classes of transformers know LumbarCLIP."""

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
