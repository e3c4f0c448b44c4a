"""Results of the LumbarCLIP paper, to show next to ours.

Its numbers come from other data (Mendeley axial slices, 528 test pairs), split by record and not by patient, without
intervals; they show the form of its tables and are not a bar to clear.

Source: LumbarCLIP, arXiv 2509.20813, table 2, and section 5, the text on figures 3 and 4: the bars themselves cannot be
read exactly.
"""

from collections.abc import Mapping
from typing import Any

# Row of Table 2: accuracy, precision, recall and F1 as printed, in percent.
TABLE_2 = {
    "ConVIRT": (81.52, 85.10, 94.47, 89.54),
    "GLoRIA": (82.25, 84.54, 96.44, 90.09),
    "MedCLIP-ViT": (82.94, 84.16, 98.08, 90.59),
    "MedCLIP-ResNet-50": (84.24, 86.94, 95.52, 91.03),
    "LumbarCLIP-ResNet50-256": (95.00, 94.50, 98.08, 94.75),
    "LumbarCLIP-ViT-256": (94.00, 94.00, 94.00, 94.00),
    "LumbarCLIP-Swin-256": (89.00, 89.00, 90.00, 89.00),
}
# What a row is made of: kind, backbone, and for LumbarCLIP the width of its linear heads. Despite its name, MedCLIP-ViT
# is a Swin transformer.
ROWS: Mapping[tuple[str, str, int | None], str] = {
    ("convirt", "ResNet", None): "ConVIRT",
    ("gloria", "ResNet", None): "GLoRIA",
    ("medclip", "Swin", None): "MedCLIP-ViT",
    ("medclip", "ResNet", None): "MedCLIP-ResNet-50",
    ("lumbarclip", "ResNet", 256): "LumbarCLIP-ResNet50-256",
    ("lumbarclip", "ViT", 256): "LumbarCLIP-ViT-256",
    ("lumbarclip", "Swin", 256): "LumbarCLIP-Swin-256",
}
# Towers of the paper's size, by backbone.
TOWERS = {"resnet50": "ResNet", "vit_base_patch16_224": "ViT", "swin_tiny_patch4_window7_224": "Swin"}
Printed = Mapping[str, tuple[float, float]]  # by metric, the lowest and the highest value that the text allows
# Figure 3: no heads, by backbone.
FIGURE_3: Mapping[str, Printed] = {
    "ResNet": {"accuracy": (0.92, 0.92), "macro_f1": (0.93, 0.93)},
    "ViT": {"accuracy": (0.90, 0.90), "macro_f1": (0.89, 0.89)},
    "Swin": {"accuracy": (0.89, 0.89), "macro_f1": (0.90, 0.90)},
}
# Figure 4, by backbone, head and width. ResNet-50 reaches "up to 95% accuracy and a 0.88 macro F1-score with 256- and
# 512-dimensional heads"; Swin's macro F1 is "0.73 vs. 0.69 at 512 dimensions" with non-linear and linear heads, and
# "0.63-0.73" in all of its bars.
UP_TO = 0.0
FIGURE_4: Mapping[tuple[str, str, int], Printed] = {
    **{
        ("ResNet", head, width): {"accuracy": (UP_TO, 0.95), "macro_f1": (UP_TO, 0.88)}
        for head in ("linear", "nonlinear")
        for width in (256, 512)
    },
    **{("Swin", head, width): {"macro_f1": (0.63, 0.73)} for head in ("linear", "nonlinear") for width in (256, 1024)},
    ("Swin", "linear", 512): {"macro_f1": (0.69, 0.69)},
    ("Swin", "nonlinear", 512): {"macro_f1": (0.73, 0.73)},
}


def backbone_family(vision: str) -> str | None:
    """Name the kind of a vision tower as the paper does, whatever its size.

    Example:
        >>> backbone_family("resnet10t"), backbone_family("swin_tiny_patch4_window7_224"), backbone_family("convnext")
        ('ResNet', 'Swin', None)
    """
    families = {"resnet": "ResNet", "swin": "Swin", "vit": "ViT", "deit": "ViT"}
    return next((family for start, family in families.items() if start in vision.lower()), None)


def printed_values(backbone: str, head: str, width: int) -> Printed:
    """Look up what the paper prints for a bar of figure 3 (`none` for a head) or 4; empty if nothing.

    Example:
        >>> printed_values("Swin", "nonlinear", 512), printed_values("ViT", "linear", 256)
        ({'macro_f1': (0.73, 0.73)}, {})
    """
    return FIGURE_3.get(backbone, {}) if head == "none" else FIGURE_4.get((backbone, head, width), {})


def format_printed(values: Printed) -> str:
    """Write accuracy and macro F1 as the paper prints them; `-` for what it does not.

    Example:
        >>> [format_printed(printed_values("Swin", head, width)) for head, width in (("none", 0), ("linear", 256))]
        ['0.89, 0.90', '-, 0.63 to 0.73']
        >>> format_printed(printed_values("ResNet", "linear", 512)), format_printed({})
        ('up to 0.95, up to 0.88', '-')
    """
    words = []
    for metric in ("accuracy", "macro_f1"):
        low, high = values.get(metric, (None, None))
        span = f"{low:.2f}" if low == high and low is not None else f"{low} to {high}"
        words.append("-" if high is None else f"up to {high:.2f}" if low == UP_TO else span)
    return ", ".join(words) if values else "-"


def paper_row(settings: Mapping[str, Any]) -> str | None:
    """Find the row of `TABLE_2` that a system repeats: its kind, a tower of the paper's size, and heads of its width.

    Example:
        >>> settings = {"vision_model_args": {}, "projection": "linear", "projection_dim": 512}
        >>> paper_row({"system": "medclip", "vision": "swin_tiny_patch4_window7_224", **settings})
        'MedCLIP-ViT'
        >>> paper_row({"system": "medclip", "vision": "resnet10t", **settings})
    """
    vision = settings["vision"].partition(".")[0]  # a timm name may end in the weights: resnet50.a1_in1k
    if settings["vision_model_args"] or vision not in TOWERS:
        return None
    has_width = settings["system"] == "lumbarclip" and settings["projection"] == "linear"
    return ROWS.get((settings["system"], TOWERS[vision], settings["projection_dim"] if has_width else None))
