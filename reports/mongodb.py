"""The errors of MongoDB: which are the server's, and what they are to Django."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError
from pymongo.errors import PyMongoError

from messaging import Unavailable
from messaging.text import describe

#: Errors of single writes that are not due to the document: the same write succeeds
#: later, or after an operator has acted. From `src/mongo/base/error_codes.yml` in
#: MongoDB's source, but for 8000, which is in the documentation of Atlas.
SERVER_CODES = {
    6: "HostUnreachable",
    7: "HostNotFound",
    13: "Unauthorized",
    18: "AuthenticationFailed",
    24: "LockTimeout",
    46: "LockBusy",
    50: "MaxTimeMSExpired",
    64: "WriteConcernTimeout",
    79: "UnknownReplWriteConcern",
    89: "NetworkTimeout",
    90: "CallbackCanceled",
    91: "ShutdownInProgress",
    100: "UnsatisfiableWriteConcern",
    107: "LockFailed",
    112: "WriteConflict",
    117: "ConflictingOperationInProgress",
    133: "FailedToSatisfyReadPreference",
    134: "ReadConcernMajorityNotAvailableYet",
    145: "PooledConnectionsDropped",
    146: "ExceededMemoryLimit",
    150: "StaleEpoch",
    175: "QueryPlanKilled",
    189: "PrimarySteppedDown",
    202: "NetworkInterfaceExceededTimeLimit",
    208: "TooManyLocks",
    214: "AuthenticationRestrictionUnmet",
    215: "DatabaseDropPending",
    216: "ElectionInProgress",
    237: "CursorKilled",
    246: "SnapshotUnavailable",
    249: "StaleDbVersion",
    250: "StaleChunkHistory",
    262: "ExceededTimeLimit",
    264: "TooManyFilesOpen",
    272: "MigrationConflict",
    279: "ClientDisconnect",
    355: "InterruptedDueToStorageChange",
    365: "TemporarilyUnavailable",
    371: "UserWritesBlocked",
    391: "ReauthenticationRequired",
    402: "ResourceExhausted",
    407: "PooledConnectionAcquisitionExceededTimeLimit",
    433: "AdmissionQueueOverflow",
    449: "RateLimitExceeded",
    453: "InterruptedDueToReshardingCriticalSection",
    462: "IngressRequestRateLimitExceeded",
    8000: "AtlasError",
    9001: "SocketException",
    10058: "LegacyNotPrimary",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11601: "Interrupted",
    11602: "InterruptedDueToReplStateChange",
    13388: "StaleConfig",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
    14031: "OutOfDiskSpace",
    46841: "ClientMarkedKilled",
    50915: "BackupCursorOpenConflictWithCheckpoint",
    56846: "ConfigServerUnreachable",
    91331: "RetriableRemoteCommandFailure",
}


@contextmanager
def django_errors() -> Iterator[None]:
    """
    Raise the errors of PyMongo as Django's `OperationalError`, with their text.

    Those by which the server says that it cannot serve are raised as `Unavailable`.
    """
    try:
        yield
    except PyMongoError as error:
        kind = Unavailable if code_of(error) in SERVER_CODES else OperationalError
        # Its text may hold whole documents.
        raise kind(f"MongoDB: {describe(error, 300)}") from error


def code_of(error: PyMongoError) -> int | None:
    """Return the code that the server has sent, if any."""
    # Errors of a member that is no primary any more have it in their details alone.
    details = getattr(error, "details", None) or {}
    code: int | None = getattr(error, "code", None) or details.get("code")
    return code
