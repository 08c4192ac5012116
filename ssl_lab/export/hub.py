"""Uploading an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils._validators import validate_repo_id


def check_hub(repo: str) -> None:
    """Ask the hub who the user is, before anything is computed.

    Raises:
        ValueError: If the name is none of the hub's, there is no token, or the hub does not know it.
        ConnectionError: If the hub is not to be asked, or does not answer.
    """
    asked = f"Cannot upload to push_to_hub={repo}:"
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(
            f"{asked} it is not the name of a repository ({error}). Give it as push_to_hub=USER/NAME."
        ) from error
    if repo.count("/") != 1:
        raise ValueError(f"{asked} it names no owner. Give it as push_to_hub=USER/NAME.")
    try:
        HfApi().whoami()
    except OfflineModeIsEnabled as error:
        raise ConnectionError(f"{asked} HF_HUB_OFFLINE is set. Unset it, or leave push_to_hub= out.") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(
            f"{asked} there is no token. Make one that may write at huggingface.co/settings/tokens, then hf auth login, or "
            "set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise ValueError(
            f"{asked} the hub refuses the token (status {status}). Give HF_TOKEN one that is valid."
        ) from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise ConnectionError(
            f"{asked} the hub cannot be reached ({error}). Try again, or leave push_to_hub= out."
        ) from error


def push(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload a folder's files in one commit to a repository, which is made if it is missing; its address.

    Raises:
        ValueError: If the hub refuses or is gone; the folder stays.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as error:
        if not (isinstance(error, HfHubHTTPError) or _is_of_the_network(error)):
            raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{folder} was written, but the upload failed to {repo} ({reason}). See that it can be reached and that the "
            f"token may write there, then hf upload {repo} {folder}"
        ) from error
    return f"{api.endpoint}/{repo}"


def _is_of_the_network(error: Exception) -> bool:
    """Of the client too, whose package depends on huggingface_hub's version."""
    return isinstance(error, OSError) or type(error).__module__.startswith("httpx")
