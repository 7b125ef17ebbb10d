"""Every error that obstore or the disk can raise, turned into one StoreError with one clear message."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore import exceptions as obstore_errors

from pipeline.errors import StoreError

# What each class of obstore's means to the person who reads the log; a test fails when one is missing here.
# obstore raises FileNotFoundError and ValueError of Python's own in some places; `translated` covers them too.
MEANINGS: dict[type[Exception], str] = {
    obstore_errors.NotFoundError: "there is no such object",
    obstore_errors.AlreadyExistsError: "it exists already",
    obstore_errors.PreconditionError: "it was changed by somebody else",
    obstore_errors.NotModifiedError: "it was not modified",
    obstore_errors.PermissionDeniedError: "access denied",
    obstore_errors.UnauthenticatedError: "the credentials were refused",
    obstore_errors.InvalidPathError: "its name is not one that storage can hold",
    obstore_errors.NotSupportedError: "this storage cannot do that",
    obstore_errors.UnknownConfigurationKeyError: "unknown storage setting",
    obstore_errors.JoinError: "the transfer was interrupted",
    obstore_errors.GenericError: "storage failed",
    obstore_errors.BaseError: "storage failed",
    FileNotFoundError: "there is no such object",
    FileExistsError: "a file is where a folder should be",
    NotADirectoryError: "a file is where a folder should be",
    PermissionError: "access denied",
    NotImplementedError: "this storage cannot do that",
    ValueError: "its name is not one that storage can hold",
    OSError: "the disk failed",
}

# Servers say the cause in the body or the transport error; more telling than the class, so looked at first.
SIGNS: tuple[tuple[str, str], ...] = (
    (r"169\.254\.169\.254|metadata\.google|169\.254\.170", "no credentials in the environment"),
    (r"NoSuchBucket|ContainerNotFound", "the bucket does not exist"),
    (r"RequestTimeTooSkewed", "our clock and storage's are too far apart"),
    (r"ExpiredToken|TokenRefreshRequired", "the credentials have expired"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken", "the credentials were refused"),
    (r"No space left|Disk quota exceeded|QuotaExceeded|StorageFull|507 Insufficient", "no space left"),
    (r"AccessDenied|403 Forbidden", "access denied"),
    (r"401 Unauthorized", "the credentials were refused"),
    (r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint", "the bucket is in another region"),
    (r"error sending request|dns error|kind: Connect", "the endpoint cannot be reached"),
    (r"operation timed out|kind: Timeout", "storage did not answer in time"),
    (r"Read-only file system", "the file system is read-only"),
    (r"no hard links there", "an output needs a file system with hard links, or the bucket's own address"),
    (r"builder error", "the endpoint's address is not a valid one"),
    (r"5\d\d (Internal|Service|Bad Gateway|Gateway|Slow)", "storage is failing"),
)
DETAIL_CHARS = 300
ABSENT = (FileNotFoundError, obstore_errors.GenericError)  # what `says_absent` can judge


def explain(error: Exception) -> str:
    """The cause in a few words, then what storage itself said, cut to one readable line."""
    text = str(error)
    meaning = next((words for sign, words in SIGNS if re.search(sign, text)), None)
    if meaning is None:
        meaning = next(words for kind, words in MEANINGS.items() if isinstance(error, kind))
    said = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    detail = f"{said[1]}: {said[2]}" if said else " ".join(text.split("\n\nDebug source")[0].split())
    if len(detail) > DETAIL_CHARS:
        detail = detail[:DETAIL_CHARS] + "..."
    return f"{meaning} ({detail})"


def says_absent(error: Exception) -> bool:
    """Whether an object is not there, as opposed to its bucket. On disk a part of its key may name a file."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "NoSuchBucket" not in text
    return "kind: NotADirectory" in text


@contextmanager
def translated(verb: str, where: str) -> Iterator[None]:
    """Raises StoreError "cannot VERB WHERE: why" for whatever storage raises inside."""
    try:
        yield
    except tuple(MEANINGS) as error:
        raise StoreError(f"cannot {verb} {where}: {explain(error)}") from error
