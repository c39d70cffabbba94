"""What of an archive can be played: sample tables found, timelines put together, files laid out."""

from casfs.recordings.opening import open_recordings as open_recordings
from casfs.recordings.sampling import CommittedPayload as CommittedPayload
from casfs.recordings.sampling import CommittedPayloads as CommittedPayloads
from casfs.recordings.sampling import Sampler as Sampler
from casfs.recordings.source import Recordings as Recordings
