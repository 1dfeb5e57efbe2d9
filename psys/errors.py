"""Every error psys raises on purpose, as one tree.

PsysError
├─ ConfigError (ValueError)     TF_CONFIG, RunConfig, arguments of a spec or a command
│  └─ ConfigTypeError (TypeError)
├─ ModelError (ValueError)      model_fn or its data cannot be used: unknown variable, wrong shape
│  └─ NanLossDuringTrainingError
├─ NotInitialized               a shard has no variables yet
├─ ClusterError                 the cluster cannot go on
│  ├─ ShardUnavailable          a ps cannot be reached (may be tried again)
│  ├─ ShardTimeout              a ps did not answer in time (may be tried again)
│  ├─ GenerationChanged         the model was restored meanwhile; join again
│  ├─ Fenced                    this task was replaced by a later process of the same name
│  └─ JobFailed                 the job's verdict is FAILED
└─ CheckpointError
   ├─ CheckpointNotFound (ValueError)   there is no such checkpoint
   └─ CheckpointCorrupt         a file is missing, short, or does not match its hash

This module holds no logic. How each class travels over gRPC: ``psys.rpc.status``.
"""


class PsysError(Exception):
    """Base of every error psys raises on purpose."""


class ConfigError(PsysError, ValueError):
    """TF_CONFIG, a RunConfig, or an argument is wrong; nothing was started."""


class ConfigTypeError(ConfigError, TypeError):
    """A value has the wrong type: also a TypeError, where tf.estimator raises one."""


class ModelError(PsysError, ValueError):
    """model_fn returned something unusable, or its data does not fit the model."""


class NanLossDuringTrainingError(ModelError):
    """The training loss is not a number (tf.estimator's NanTensorHook promise)."""


class NotInitialized(PsysError):
    """The shard has no variables yet; the chief must create or restore them first."""


class ClusterError(PsysError):
    """The cluster cannot go on, or this task has no part in it any more."""


class ShardUnavailable(ClusterError):
    """A ps cannot be reached; the same request may be sent again."""


class ShardTimeout(ClusterError):
    """A ps did not answer in time; the same request may be sent again."""


class GenerationChanged(ClusterError):
    """The model was created or restored anew; drop cached values and join again."""


class Fenced(ClusterError):
    """A later process took this task's place; this one must stop."""


class JobFailed(ClusterError):
    """The job's verdict is FAILED; the message is its reason."""


class CheckpointError(PsysError):
    """A checkpoint cannot be written or read."""


class CheckpointNotFound(CheckpointError, ValueError):
    """No checkpoint is where one was asked for: a ValueError, as in tf.estimator."""


class CheckpointCorrupt(CheckpointError):
    """A checkpoint's file is missing, short, or does not match its hash."""
