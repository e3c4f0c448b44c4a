"""Licences as the Hugging Face Hub names them; it refuses a card with any other."""

import re
from difflib import get_close_matches

# https://huggingface.co/docs/hub/repositories-licenses, and those that the Hub's card check listed in May 2026; without
# `unknown` and `other`, which say nothing.
_NAMES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community
h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 pddl postgresql
unlicense wtfpl zlib
"""
HUB_LICENSES = frozenset(_NAMES.split())
MAX_NAME_LENGTH = 60


def check_license(licence: str) -> None:
    """Raise a ValueError, with similar ids, if a licence is neither an id of the Hub nor `other: ` and words."""
    if licence in HUB_LICENSES or re.fullmatch(r"other: .*\w.*", licence):
        return
    alike = get_close_matches(licence.lower(), sorted(HUB_LICENSES), n=3)
    meant = f" Did you mean {' or '.join(alike)}?" if alike else ""
    raise ValueError(f"--license must be like cc-by-4.0 or 'other: our own words', got {licence!r}.{meant}")


def license_name(words: str) -> str:
    """Make a name of lower-case letters, digits, hyphens and points, which the Hub shows for `license: other`.

    Example:
        >>> license_name("non-commercial use, no redistribution (competition rules)")
        'non-commercial-use-no-redistribution-competition-rules'
    """
    return re.sub(r"[^a-z0-9.]+", "-", words.lower())[:MAX_NAME_LENGTH].strip("-.") or "own-license"
