"""Importing this module makes the Auto classes of transformers know LumbarCLIP: each file registers its class."""

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
