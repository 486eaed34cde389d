"""Exported folders on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
_SCHEME = "hub:"


def hub_name(target: str) -> str:
    """The name in ``hub:owner/name``, looked at before anything is exported.

    Args:
        target: as it was given.

    Raises:
        ValueError: if it is none, or there is no token in the environment.
    """
    name = target.removeprefix(_SCHEME)
    if name == target or name.count("/") != 1:
        raise ValueError(f"--push {target}: a place on the hub is written {_SCHEME}owner/name")
    if not os.environ.get(TOKEN):
        raise ValueError(f"--push needs a token that may write, in the environment variable {TOKEN}")
    return name


def push(folder: Path, name: str) -> str:
    """Uploads a folder as one commit; the repository is made, private, where there is none.

    Args:
        folder: to upload.
        name: of the repository, ``owner/name``.

    Returns:
        Where it is.
    """
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ[TOKEN])
    place = api.create_repo(name, private=True, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by swirl-lightning")
    return str(place)
