"""Finds CLIP's tokenizer files on this machine; SDXL's two text encoders differ only in the padding token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError

REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"
CACHED = ((REPOSITORY, "tokenizer/vocab.json"), ("openai/clip-vit-large-patch14", "vocab.json"))
PAD_TOKEN_2 = "!"


def load_tokenizers(given: str | Path | None, beside: Sequence[Path]) -> tuple[Any, Any]:
    """Both CLIP tokenizers of SDXL.

    Searched: `given` (a folder with vocab.json and merges.txt, or one that holds tokenizer/), then tokenizer/ in the
    folders `beside`, then the local Hugging Face cache. Errors: InputError saying what to get and where to put it.
    """
    if given is not None:
        folder = _find(Path(given).expanduser())
        if folder is None:
            raise InputError(
                "--tokenizer",
                "a folder with vocab.json and merges.txt",
                str(given),
                f"get both from tokenizer/ of {REPOSITORY}",
            )
    else:
        folder = next((f for place in beside if (f := _find(place))), None) or _cached()
    if folder is None:
        raise InputError(
            "--tokenizer",
            "CLIP's tokenizer files, which a single-file checkpoint does not contain",
            "none beside the checkpoint or in the Hugging Face cache",
            f"get the folders tokenizer/ and tokenizer_2/ (vocab.json, merges.txt) of {REPOSITORY} and put them beside "
            "the checkpoint, or name the folder with --tokenizer",
        )
    second = folder.parent / "tokenizer_2"
    has_second = folder.name == "tokenizer" and _complete(second)
    return _load(folder), _load(second) if has_second else _load(folder, pad_token=PAD_TOKEN_2)


def _complete(folder: Path) -> bool:
    slow = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return slow or (folder / "tokenizer.json").is_file()


def _find(place: Path) -> Path | None:
    return next((f for f in (place / "tokenizer", place) if _complete(f)), None)


def _cached() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repository, name in CACHED:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str) and _complete(Path(found).parent):
            return Path(found).parent
    return None


def _load(folder: Path, **options: str) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        got = f"files in {folder.name}/ that cannot be read: {reason}"
        raise InputError("--tokenizer", "CLIP's vocab.json and merges.txt", got, "download them again") from error
