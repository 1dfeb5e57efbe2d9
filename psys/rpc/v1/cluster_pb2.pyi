from psys.rpc.v1 import checkpoints_pb2 as _checkpoints_pb2
from psys.rpc.v1 import shard_pb2 as _shard_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_PHASE_UNSPECIFIED: _ClassVar[TaskPhase]
    TASK_PHASE_JOINING: _ClassVar[TaskPhase]
    TASK_PHASE_WORKING: _ClassVar[TaskPhase]
    TASK_PHASE_INPUT_ENDED: _ClassVar[TaskPhase]
    TASK_PHASE_LEFT: _ClassVar[TaskPhase]
    TASK_PHASE_FAILED: _ClassVar[TaskPhase]

class ShardPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARD_PHASE_UNSPECIFIED: _ClassVar[ShardPhase]
    SHARD_PHASE_EMPTY: _ClassVar[ShardPhase]
    SHARD_PHASE_LOADING: _ClassVar[ShardPhase]
    SHARD_PHASE_LOADED: _ClassVar[ShardPhase]
    SHARD_PHASE_LIVE: _ClassVar[ShardPhase]

class Standing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDING_UNSPECIFIED: _ClassVar[Standing]
    STANDING_ADMITTED: _ClassVar[Standing]
    STANDING_WAITING: _ClassVar[Standing]
    STANDING_REPLACED: _ClassVar[Standing]
    STANDING_REJECTED: _ClassVar[Standing]

class JobPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_PHASE_UNSPECIFIED: _ClassVar[JobPhase]
    JOB_PHASE_WAITING: _ClassVar[JobPhase]
    JOB_PHASE_RUNNING: _ClassVar[JobPhase]
    JOB_PHASE_STOPPING: _ClassVar[JobPhase]
    JOB_PHASE_DRAINED: _ClassVar[JobPhase]
    JOB_PHASE_ENDED: _ClassVar[JobPhase]

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_ASYNC: _ClassVar[Consistency]
    CONSISTENCY_BOUNDED: _ClassVar[Consistency]
    CONSISTENCY_SYNC: _ClassVar[Consistency]
TASK_PHASE_UNSPECIFIED: TaskPhase
TASK_PHASE_JOINING: TaskPhase
TASK_PHASE_WORKING: TaskPhase
TASK_PHASE_INPUT_ENDED: TaskPhase
TASK_PHASE_LEFT: TaskPhase
TASK_PHASE_FAILED: TaskPhase
SHARD_PHASE_UNSPECIFIED: ShardPhase
SHARD_PHASE_EMPTY: ShardPhase
SHARD_PHASE_LOADING: ShardPhase
SHARD_PHASE_LOADED: ShardPhase
SHARD_PHASE_LIVE: ShardPhase
STANDING_UNSPECIFIED: Standing
STANDING_ADMITTED: Standing
STANDING_WAITING: Standing
STANDING_REPLACED: Standing
STANDING_REJECTED: Standing
JOB_PHASE_UNSPECIFIED: JobPhase
JOB_PHASE_WAITING: JobPhase
JOB_PHASE_RUNNING: JobPhase
JOB_PHASE_STOPPING: JobPhase
JOB_PHASE_DRAINED: JobPhase
JOB_PHASE_ENDED: JobPhase
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_ASYNC: Consistency
CONSISTENCY_BOUNDED: Consistency
CONSISTENCY_SYNC: Consistency

class AttendRequest(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: Report
    def __init__(self, report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class AttendResponse(_message.Message):
    __slots__ = ("directive",)
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    directive: Directive
    def __init__(self, directive: _Optional[_Union[Directive, _Mapping]] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("member", "sequence")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    member: int
    sequence: int
    def __init__(self, member: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class Fences(_message.Message):
    __slots__ = ("by_task",)
    class ByTaskEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Fence
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Fence, _Mapping]] = ...) -> None: ...
    BY_TASK_FIELD_NUMBER: _ClassVar[int]
    by_task: _containers.MessageMap[str, Fence]
    def __init__(self, by_task: _Optional[_Mapping[str, Fence]] = ...) -> None: ...

class Numbers(_message.Message):
    __slots__ = ("by_task",)
    class ByTaskEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BY_TASK_FIELD_NUMBER: _ClassVar[int]
    by_task: _containers.ScalarMap[str, int]
    def __init__(self, by_task: _Optional[_Mapping[str, int]] = ...) -> None: ...

class PastFence(_message.Message):
    __slots__ = ("task", "member", "sequence")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    task: str
    member: int
    sequence: int
    def __init__(self, task: _Optional[str] = ..., member: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class ShardFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("consistency", "staleness", "replicas")
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    consistency: Consistency
    staleness: int
    replicas: int
    def __init__(self, consistency: _Optional[_Union[Consistency, str]] = ..., staleness: _Optional[int] = ..., replicas: _Optional[int] = ...) -> None: ...

class UpdateOrder(_message.Message):
    __slots__ = ("number", "global_step", "pushes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    PUSHES_FIELD_NUMBER: _ClassVar[int]
    number: int
    global_step: int
    pushes: Fences
    def __init__(self, number: _Optional[int] = ..., global_step: _Optional[int] = ..., pushes: _Optional[_Union[Fences, _Mapping]] = ...) -> None: ...

class ShardFacts(_message.Message):
    __slots__ = ("index", "phase", "generation", "refused", "held", "fences", "cut", "written", "file", "write_error", "newest_checkpoint", "newest_step", "past_fences", "cut_inputs", "cut_examples", "updates", "arrived")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FENCES_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    WRITE_ERROR_FIELD_NUMBER: _ClassVar[int]
    NEWEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_STEP_FIELD_NUMBER: _ClassVar[int]
    PAST_FENCES_FIELD_NUMBER: _ClassVar[int]
    CUT_INPUTS_FIELD_NUMBER: _ClassVar[int]
    CUT_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    index: int
    phase: ShardPhase
    generation: str
    refused: Numbers
    held: str
    fences: Fences
    cut: str
    written: str
    file: ShardFile
    write_error: str
    newest_checkpoint: str
    newest_step: int
    past_fences: _containers.RepeatedCompositeFieldContainer[PastFence]
    cut_inputs: Numbers
    cut_examples: int
    updates: int
    arrived: Fences
    def __init__(self, index: _Optional[int] = ..., phase: _Optional[_Union[ShardPhase, str]] = ..., generation: _Optional[str] = ..., refused: _Optional[_Union[Numbers, _Mapping]] = ..., held: _Optional[str] = ..., fences: _Optional[_Union[Fences, _Mapping]] = ..., cut: _Optional[str] = ..., written: _Optional[str] = ..., file: _Optional[_Union[ShardFile, _Mapping]] = ..., write_error: _Optional[str] = ..., newest_checkpoint: _Optional[str] = ..., newest_step: _Optional[int] = ..., past_fences: _Optional[_Iterable[_Union[PastFence, _Mapping]]] = ..., cut_inputs: _Optional[_Union[Numbers, _Mapping]] = ..., cut_examples: _Optional[int] = ..., updates: _Optional[int] = ..., arrived: _Optional[_Union[Fences, _Mapping]] = ...) -> None: ...

class ChiefFacts(_message.Message):
    __slots__ = ("max_steps", "loaded", "loaded_step", "save_request", "stop_reason", "committed", "evaluator_expected", "conclusion", "proposed_job", "loaded_examples")
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    LOADED_STEP_FIELD_NUMBER: _ClassVar[int]
    SAVE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    CONCLUSION_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_JOB_FIELD_NUMBER: _ClassVar[int]
    LOADED_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    max_steps: int
    loaded: str
    loaded_step: int
    save_request: int
    stop_reason: str
    committed: _containers.RepeatedCompositeFieldContainer[_checkpoints_pb2.Checkpoint]
    evaluator_expected: bool
    conclusion: _checkpoints_pb2.JobVerdict
    proposed_job: str
    loaded_examples: int
    def __init__(self, max_steps: _Optional[int] = ..., loaded: _Optional[str] = ..., loaded_step: _Optional[int] = ..., save_request: _Optional[int] = ..., stop_reason: _Optional[str] = ..., committed: _Optional[_Iterable[_Union[_checkpoints_pb2.Checkpoint, _Mapping]]] = ..., evaluator_expected: bool = ..., conclusion: _Optional[_Union[_checkpoints_pb2.JobVerdict, _Mapping]] = ..., proposed_job: _Optional[str] = ..., loaded_examples: _Optional[int] = ...) -> None: ...

class EvaluatorFacts(_message.Message):
    __slots__ = ("completed", "pins", "progress", "export")
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    completed: _containers.RepeatedScalarFieldContainer[str]
    pins: _containers.RepeatedScalarFieldContainer[str]
    progress: str
    export: str
    def __init__(self, completed: _Optional[_Iterable[str]] = ..., pins: _Optional[_Iterable[str]] = ..., progress: _Optional[str] = ..., export: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("task", "instance", "revision", "protocol_version", "cluster_digest", "model_digest", "generation", "member", "phase", "reason", "heard_verdict", "shard", "chief", "evaluator", "job_id", "policy", "plan_digest")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HEARD_VERDICT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CHIEF_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    task: str
    instance: str
    revision: int
    protocol_version: int
    cluster_digest: str
    model_digest: str
    generation: str
    member: int
    phase: TaskPhase
    reason: str
    heard_verdict: bool
    shard: ShardFacts
    chief: ChiefFacts
    evaluator: EvaluatorFacts
    job_id: str
    policy: Policy
    plan_digest: str
    def __init__(self, task: _Optional[str] = ..., instance: _Optional[str] = ..., revision: _Optional[int] = ..., protocol_version: _Optional[int] = ..., cluster_digest: _Optional[str] = ..., model_digest: _Optional[str] = ..., generation: _Optional[str] = ..., member: _Optional[int] = ..., phase: _Optional[_Union[TaskPhase, str]] = ..., reason: _Optional[str] = ..., heard_verdict: bool = ..., shard: _Optional[_Union[ShardFacts, _Mapping]] = ..., chief: _Optional[_Union[ChiefFacts, _Mapping]] = ..., evaluator: _Optional[_Union[EvaluatorFacts, _Mapping]] = ..., job_id: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., plan_digest: _Optional[str] = ...) -> None: ...

class ShardOrders(_message.Message):
    __slots__ = ("generation", "phase", "refused", "save", "cut", "cut_step", "chief", "policy", "update", "clocks")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SAVE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    CUT_STEP_FIELD_NUMBER: _ClassVar[int]
    CHIEF_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    generation: str
    phase: ShardPhase
    refused: Numbers
    save: str
    cut: Fences
    cut_step: int
    chief: int
    policy: Policy
    update: UpdateOrder
    clocks: Fences
    def __init__(self, generation: _Optional[str] = ..., phase: _Optional[_Union[ShardPhase, str]] = ..., refused: _Optional[_Union[Numbers, _Mapping]] = ..., save: _Optional[str] = ..., cut: _Optional[_Union[Fences, _Mapping]] = ..., cut_step: _Optional[int] = ..., chief: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., update: _Optional[_Union[UpdateOrder, _Mapping]] = ..., clocks: _Optional[_Union[Fences, _Mapping]] = ...) -> None: ...

class SaveResult(_message.Message):
    __slots__ = ("request", "checkpoint_id", "generation", "global_step", "cut", "files", "torn", "error", "inputs", "examples")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TORN_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    request: int
    checkpoint_id: str
    generation: str
    global_step: int
    cut: Fences
    files: _containers.RepeatedCompositeFieldContainer[ShardFile]
    torn: _containers.RepeatedScalarFieldContainer[str]
    error: str
    inputs: Numbers
    examples: int
    def __init__(self, request: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., generation: _Optional[str] = ..., global_step: _Optional[int] = ..., cut: _Optional[_Union[Fences, _Mapping]] = ..., files: _Optional[_Iterable[_Union[ShardFile, _Mapping]]] = ..., torn: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ..., inputs: _Optional[_Union[Numbers, _Mapping]] = ..., examples: _Optional[int] = ...) -> None: ...

class ChiefOrders(_message.Message):
    __slots__ = ("initialize", "lost_step", "saved", "completed", "evaluator", "evaluator_seen", "export", "pins", "newest_checkpoint", "newest_step", "pushes")
    INITIALIZE_FIELD_NUMBER: _ClassVar[int]
    LOST_STEP_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_SEEN_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_STEP_FIELD_NUMBER: _ClassVar[int]
    PUSHES_FIELD_NUMBER: _ClassVar[int]
    initialize: str
    lost_step: int
    saved: SaveResult
    completed: _containers.RepeatedScalarFieldContainer[str]
    evaluator: str
    evaluator_seen: bool
    export: str
    pins: _containers.RepeatedScalarFieldContainer[str]
    newest_checkpoint: str
    newest_step: int
    pushes: PushCounts
    def __init__(self, initialize: _Optional[str] = ..., lost_step: _Optional[int] = ..., saved: _Optional[_Union[SaveResult, _Mapping]] = ..., completed: _Optional[_Iterable[str]] = ..., evaluator: _Optional[str] = ..., evaluator_seen: bool = ..., export: _Optional[str] = ..., pins: _Optional[_Iterable[str]] = ..., newest_checkpoint: _Optional[str] = ..., newest_step: _Optional[int] = ..., pushes: _Optional[_Union[PushCounts, _Mapping]] = ...) -> None: ...

class PushCounts(_message.Message):
    __slots__ = ("generation", "staleness", "dropped")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    generation: str
    staleness: _containers.RepeatedScalarFieldContainer[int]
    dropped: int
    def __init__(self, generation: _Optional[str] = ..., staleness: _Optional[_Iterable[int]] = ..., dropped: _Optional[int] = ...) -> None: ...

class Directive(_message.Message):
    __slots__ = ("revision", "lead", "standing", "member", "generation", "job", "waiting_for", "global_step", "live_trainers", "shard", "chief", "verdict", "job_id", "ps_lost")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEAD_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    LIVE_TRAINERS_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CHIEF_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PS_LOST_FIELD_NUMBER: _ClassVar[int]
    revision: int
    lead: str
    standing: Standing
    member: int
    generation: str
    job: JobPhase
    waiting_for: str
    global_step: int
    live_trainers: int
    shard: ShardOrders
    chief: ChiefOrders
    verdict: _checkpoints_pb2.JobVerdict
    job_id: str
    ps_lost: bool
    def __init__(self, revision: _Optional[int] = ..., lead: _Optional[str] = ..., standing: _Optional[_Union[Standing, str]] = ..., member: _Optional[int] = ..., generation: _Optional[str] = ..., job: _Optional[_Union[JobPhase, str]] = ..., waiting_for: _Optional[str] = ..., global_step: _Optional[int] = ..., live_trainers: _Optional[int] = ..., shard: _Optional[_Union[ShardOrders, _Mapping]] = ..., chief: _Optional[_Union[ChiefOrders, _Mapping]] = ..., verdict: _Optional[_Union[_checkpoints_pb2.JobVerdict, _Mapping]] = ..., job_id: _Optional[str] = ..., ps_lost: bool = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("task", "member", "standing", "phase")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    task: str
    member: int
    standing: str
    phase: TaskPhase
    def __init__(self, task: _Optional[str] = ..., member: _Optional[int] = ..., standing: _Optional[str] = ..., phase: _Optional[_Union[TaskPhase, str]] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("job", "generation", "global_step", "max_steps", "waiting_for", "tasks", "checkpoints", "plan", "holders")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    job: JobPhase
    generation: str
    global_step: int
    max_steps: int
    waiting_for: str
    tasks: _containers.RepeatedCompositeFieldContainer[TaskStatus]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_checkpoints_pb2.Checkpoint]
    plan: _containers.RepeatedCompositeFieldContainer[_shard_pb2.PlannedSlice]
    holders: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job: _Optional[_Union[JobPhase, str]] = ..., generation: _Optional[str] = ..., global_step: _Optional[int] = ..., max_steps: _Optional[int] = ..., waiting_for: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[TaskStatus, _Mapping]]] = ..., checkpoints: _Optional[_Iterable[_Union[_checkpoints_pb2.Checkpoint, _Mapping]]] = ..., plan: _Optional[_Iterable[_Union[_shard_pb2.PlannedSlice, _Mapping]]] = ..., holders: _Optional[_Iterable[str]] = ...) -> None: ...
