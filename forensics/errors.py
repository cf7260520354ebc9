"""Every error a caller can catch.

ForensicsError
├── MediaError        a file could not be examined; `label` names the abstention it ends in
├── CheckpointError   weights, card and network do not belong together
├── ConfigError       an option or a configuration key is wrong
├── ManifestError     a data set's list of files is wrong
├── TrainingError     a training run cannot start, or cannot go on
├── ReportError       a report cannot be read, signed or compared
└── ScanCancelled     a scan was ended from outside, see `forensics.video.cancellation`
"""

from __future__ import annotations


class ForensicsError(Exception):
    """Base of all errors raised on purpose. Its text is one line: what, where, what to do."""


class MediaError(ForensicsError):
    """A file could not be examined.

    `label` is the abstention the file ends in: `undecodable`, `no_video_stream`,
    `limit_exceeded` or `unsupported`.
    """

    def __init__(self, message: str, *, label: str) -> None:
        super().__init__(message)
        self.label = label


class CheckpointError(ForensicsError):
    """A checkpoint is damaged, or its weights do not fit its card."""


class ConfigError(ForensicsError):
    """A configuration key, value or option is wrong."""


class ManifestError(ForensicsError):
    """A manifest names something that does not exist or contradicts itself."""


class TrainingError(ForensicsError):
    """A training run cannot start or go on; the text says what is kept and how to continue."""


class ReportError(ForensicsError):
    """A report cannot be read, signed or compared."""


class ScanCancelled(ForensicsError):
    """A scan was ended on request: there is no report, and nothing is wrong with the file."""
