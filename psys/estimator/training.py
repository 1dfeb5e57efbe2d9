"""TrainingRun: one trainer's whole training, from the first batch to the final checkpoint.

The same for a chief or worker of a cluster and for training on one machine; only the
Membership differs. It does not know how the job ends: ``psys.roles`` does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from psys.compute.variables import global_step_in_hooks
from psys.errors import ClusterError, ConfigError, ModelError
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.estimator.run_config import RunConfig
from psys.parameters import Parameters
from psys.ps.messages import (
    CheckpointEntry,
    Consistency,
    Directive,
    JobPhase,
    Policy,
    TaskPhase,
)
from psys.ps.roster import LEASE_SECS
from psys.sharding import ShardMap, describe, plan
from psys.summary.writer import SummaryWriter
from psys.train.builtin_hooks import (
    LISTENER_STOPS,
    CheckpointSaverHook,
    LossSummaryHook,
    ProgressHook,
    StalenessHook,
    StepCounterHook,
)
from psys.train.chief import ChiefControl
from psys.train.committed import CommittedCheckpoints, KeepRules
from psys.train.hooks import CheckpointSaverListener, SessionRunHook
from psys.train.input_pipeline import InputContext, InputPipeline, batches, call_input_fn
from psys.train.interrupts import SIGNALS
from psys.train.membership import Membership
from psys.train.model import build
from psys.train.overlapped import OverlappedSession
from psys.train.progress import ProgressReporter
from psys.train.restoring import new_seed
from psys.train.second_thread import second_thread
from psys.train.session import LoopResult, Session
from psys.train.sync_replicas import policy_of
from psys.train.trainer import Trainer

logger = logging.getLogger("psys")

PLAN_VARIABLES = 40
"""Of a model with more variables the log shows the largest; `psys status` shows all."""

CallModelFn = Callable[[Any, Any, str], EstimatorSpec]


@dataclass(frozen=True)
class TrainArguments:
    """What ``Estimator.train`` was given.

    Attributes:
        input_fn: makes batches.
        hooks: the user's.
        saving_listeners: told of checkpoints (chief only).
        steps: so many more steps; excludes ``max_steps``.
        max_steps: train up to this global step.
        input_context: which part of the input is this trainer's.
        params: given to input_fn if it asks.
    """

    input_fn: Callable[..., Any]
    hooks: Sequence[SessionRunHook] = ()
    saving_listeners: Sequence[CheckpointSaverListener] = ()
    steps: int | None = None
    max_steps: int | None = None
    input_context: InputContext = field(default_factory=InputContext)
    params: Any = None


class TrainingRun:
    """One trainer's training. Use ``run``, then, on the chief, ``finish``; ``close`` always."""

    def __init__(
        self,
        call_model_fn: CallModelFn,
        config: RunConfig,
        membership: Membership,
        arguments: TrainArguments,
    ) -> None:
        """Keep what is needed; nothing starts before ``run``."""
        assert membership.attendance is not None
        self._call_model_fn = call_model_fn
        self._config = config
        self._membership = membership
        self._attendance = membership.attendance
        self._arguments = arguments
        self._pipeline: InputPipeline | None = None
        self._parameters: Parameters | None = None
        self._writer: SummaryWriter | None = None
        self._reporter: ProgressReporter | None = None
        self._saver: CheckpointSaverHook | None = None
        self._session: Session | None = None
        self._second: Executor | None = None
        self._hooks: list[SessionRunHook] = []
        self._around_hooks = ExitStack()
        self._stopped_at: Directive | None = None
        """The directive known when no more was granted; None while there is more."""
        self.control: ChiefControl | None = None

    def run(self) -> LoopResult:
        """Train until the lead grants no more, the input ends, or a hook asks.

        Raises:
            ConfigError: if there are saving_listeners and no checkpoints to tell them of.
            ModelError: if input_fn or model_fn are unusable, or the input is empty.
        """
        arguments, config = self._arguments, self._config
        if arguments.saving_listeners and not (
            config.save_checkpoints_steps or config.save_checkpoints_secs
        ):
            raise ConfigError(
                "There should be a CheckpointSaverHook to use saving_listeners. Please set one "
                "of the RunConfig.save_checkpoints_steps or RunConfig.save_checkpoints_secs."
            )
        seed = config.tf_random_seed if config.tf_random_seed is not None else new_seed()
        pipeline = InputPipeline(self._read_input)
        self._pipeline = pipeline
        first = pipeline.next()
        if first is None:
            raise ModelError("The training input_fn gave no batch: its input is empty.")
        model, built = build(self._call_model, first.features, first.labels, seed)
        first.prepare(model.lookups)
        pipeline.lookups = model.lookups
        # Longer than the lead waits for a ps: it is the lead that says how that wait ends.
        retry_secs = config.recover_secs + LEASE_SECS
        shards = self._membership.shards(config.strategy.push_dtype)
        strategy = config.strategy
        shard_map = plan(
            list(model.specs.values()),
            len(shards),
            strategy.variable_partitioner,
            strategy.placement,
        )
        parameters = Parameters(model.specs, shards, retry_secs, shard_map=shard_map)
        self._parameters = parameters
        policy = policy_of(config.strategy, model.replicas_to_aggregate)
        parameters.same_version = policy.consistency is Consistency.SYNC
        # Before the model is loaded: the lead seals it under the chief's policy.
        self._attendance.update(
            model_digest=model.digest, policy=policy, plan_digest=shard_map.digest
        )
        if self._membership.is_chief:
            logger.info("The model has %s.", model.describe())
            self._say_policy(policy, arguments.input_context.num_input_pipelines)
            self._say_plan(parameters)
            self._start_chief(model.specs, seed, shard_map)
        trainer = Trainer(self._attendance, parameters)
        parameters.check = trainer.check
        assert isinstance(built, EstimatorSpec)
        self._hooks = self._all_hooks(built)
        self._around_hooks.enter_context(
            global_step_in_hooks(lambda: self._session.global_step if self._session else 0)
        )
        for hook in self._hooks:
            hook.begin()
        # Trainers at the same global step must not draw the same numbers.
        own_seed = seed + arguments.input_context.input_pipeline_id
        kind = OverlappedSession if config.strategy.pipeline_depth else Session
        self._second = second_thread(config.cluster_config)
        session = kind(
            model, self._call_model, trainer, pipeline, self._hooks, own_seed, self._second
        )
        self._session = session
        if self.control is not None:
            self.control.reached = lambda: session.global_step
        result = self._end(session.run(first))
        if self.control is None:
            result = self._await_end(session, result)
        # Who comes after the end was never given a place, and has only the verdict to go by.
        verdict = self._attendance.directive.verdict
        reached = max(result.global_step, verdict.global_step if verdict else 0)
        if not result.steps and 0 < (arguments.max_steps or 0) <= reached:
            logger.info(
                "Nothing to train: global step %d has reached max_steps %d already.",
                reached,
                arguments.max_steps,
            )
        elif not result.steps:
            logger.warning("Training made no steps: %s.", result.reason)
        elif result.loss is not None and self._ended_well(result):
            logger.info("Loss for final step: %.6g.", result.loss)
        if result.dropped:
            logger.info("%d steps came too late for their update.", result.dropped)
        if result.reason == "input ended" and (arguments.max_steps or 0) > result.global_step:
            logger.warning(
                "The input ended after global step %d; max_steps is %d.",
                result.global_step,
                arguments.max_steps,
            )
        return result

    def finish(self) -> CheckpointEntry:
        """Wait until no step is under way, save the final checkpoint, end the hooks (chief).

        Raises:
            JobFailed: if the job failed meanwhile.
            ClusterError: if steps were lost that cannot be taken again.
            CheckpointError: if the checkpoint could not be saved.
        """
        saver, session = self._saver, self._session
        assert saver is not None
        assert session is not None
        reached = 0
        while True:
            drained = self._attendance.wait_for(
                lambda one: (
                    one.job is JobPhase.DRAINED
                    or self._may_go_on(one)
                    or self._saves_meanwhile(saver, one)
                ),
                "all trainers to take their last step",
            )
            if drained.job is not JobPhase.DRAINED:
                if self._may_go_on(drained):
                    self._end(session.resume())
                else:
                    self._save_meanwhile(saver, session, drained.global_step)
                continue
            if drained.global_step < reached:
                raise ClusterError(
                    f"A ps was lost after the last step, {reached}: the model went back to step "
                    f"{drained.global_step}, and the input of the steps between is used up."
                )
            reached = session.global_step = drained.global_step
            last = saver.save_last(session, drained.global_step)
            now = self._attendance.directive
            if last.global_step == drained.global_step and now.generation == drained.generation:
                break
            # A ps was lost meanwhile: what was saved is not the end of this model.
            logger.warning("The model went back before its end was saved; training goes on.")
        for hook in self._hooks:
            hook.end(session)
        return last

    def request_stop(self, reason: str) -> bool:
        """Ask the loop to end after the step under way; False if it has not begun."""
        if self._session is None:
            return False
        self._session.request_stop(reason)
        return True

    def close(self) -> None:
        """Give up input, connections and files; also after an exception."""
        self._around_hooks.close()
        if self._session is not None:
            self._session.close()
        if self._second is not None:
            self._second.shutdown()
        if self._pipeline is not None:
            self._pipeline.close()
        if self.control is not None:
            self.control.close()
        if self._parameters is not None:
            self._parameters.close()
        if self._writer is not None:
            self._writer.close()
        if self._reporter is not None:
            self._reporter.close()

    # ------------------------------------------------------------ inside

    def _read_input(self) -> Any:
        arguments = self._arguments
        returned = call_input_fn(
            arguments.input_fn,
            mode=ModeKeys.TRAIN,
            params=arguments.params,
            config=self._config,
            input_context=arguments.input_context,
        )
        return batches(returned, repeat=True)

    def _call_model(self, features: Any, labels: Any) -> EstimatorSpec:
        return self._call_model_fn(features, labels, ModeKeys.TRAIN)

    def _say_policy(self, policy: Policy, trainers: int) -> None:
        strategy = self._config.strategy
        logger.info(
            "Training with %s, pipeline_depth=%d, push_dtype=%s.",
            policy,
            strategy.pipeline_depth,
            strategy.push_dtype,
        )
        if policy.replicas > trainers:
            logger.warning(
                "replicas_to_aggregate is %d and there are %d trainers: an update averages the "
                "gradients of all of them.",
                policy.replicas,
                trainers,
            )

    def _say_plan(self, parameters: Parameters) -> None:
        """Say once which rows of which variable are where, of a large model the main part."""
        settings = self._membership.settings
        there = settings.job.ps or (settings.task if settings.shard_addresses else "this process",)
        logger.info("The plan:")
        for line in describe(parameters.planned, there, PLAN_VARIABLES):
            if line:
                logger.info("  %s", line)

    def _start_chief(self, specs: Any, seed: int, shard_map: ShardMap) -> None:
        config, settings = self._config, self._membership.settings
        shards = self._membership.shards()
        parameters = Parameters(specs, shards, config.recover_secs, shard_map=shard_map)
        self.control = ChiefControl(
            self._attendance,
            parameters,
            CommittedCheckpoints(
                settings.model_dir,
                parameters,
                KeepRules(config.keep_checkpoint_max, config.keep_checkpoint_every_n_hours),
                settings.shard_addresses,
                settings.token,
            ),
            seed=seed,
            steps=self._arguments.steps,
            max_steps=self._arguments.max_steps,
        )
        self.control.start()

    def _all_hooks(self, spec: EstimatorSpec) -> list[SessionRunHook]:
        """Return the hooks in tf.estimator's order: the chief's own, the user's, model_fn's."""
        every_steps = self._config.log_step_count_steps
        hooks: list[SessionRunHook] = []
        if self.control is not None:
            hooks += self._chief_hooks(self.control, spec)
        hooks += self._arguments.hooks
        if self.control is None and every_steps:
            hooks.append(StepCounterHook(every_steps, None))
        return [*hooks, *spec.training_hooks]

    def _chief_hooks(self, control: ChiefControl, spec: EstimatorSpec) -> list[SessionRunHook]:
        config, arguments = self._config, self._arguments
        steps, secs = config.save_checkpoints_steps, config.save_checkpoints_secs
        self._saver = CheckpointSaverHook(
            control, secs or None, steps or None, arguments.saving_listeners
        )
        hooks: list[SessionRunHook] = [self._saver, *spec.training_chief_hooks]
        self._writer = SummaryWriter(self._membership.settings.model_dir)
        if config.log_step_count_steps:
            hooks.append(StepCounterHook(config.log_step_count_steps, self._writer))
        if config.save_summary_steps:
            hooks.append(LossSummaryHook(config.save_summary_steps, self._writer))
            if self._membership.settings.shard_addresses:
                hooks.append(StalenessHook(config.save_summary_steps, self._writer, control))
        self._reporter = ProgressReporter(arguments.max_steps, sys.stderr)
        hooks.append(ProgressHook(self._reporter))
        return hooks

    def _end(self, result: LoopResult) -> LoopResult:
        """Tell the lead why this trainer takes no more steps, unless it is the lead's doing."""
        self._stopped_at = self._attendance.directive if result.stopped else None
        if result.by_hook and self.control is not None:
            self.control.stop(result.reason)
        if not result.stopped:
            self._attendance.update(phase=TaskPhase.INPUT_ENDED)
        return result

    def _ended_well(self, result: LoopResult) -> bool:
        """Return whether the last step was the final one: no signal came, and nothing failed."""
        verdict = self._attendance.directive.verdict
        failed = verdict is not None and not verdict.finished
        return not failed and result.reason not in SIGNALS

    def _saves_meanwhile(self, saver: CheckpointSaverHook, directive: Directive) -> bool:
        """Return whether a checkpoint is due of what others train, this trainer's input ended."""
        others_train = self._stopped_at is None and directive.job is JobPhase.RUNNING
        return others_train and saver.is_time(directive.global_step)

    def _save_meanwhile(self, saver: CheckpointSaverHook, session: Session, step: int) -> None:
        session.global_step = step
        session.ended = False  # what is saved now is not the last
        try:
            stops = saver.save_now(session, step)
        finally:
            session.ended = True
        if stops and self.control is not None:
            self.control.stop(LISTENER_STOPS)

    def _may_go_on(self, directive: Directive) -> bool:
        """Return whether a trainer that was granted no more may be granted more now.

        The model went back to a checkpoint, or another chief goes on with it.
        """
        then = self._stopped_at
        if then is None or directive.job is not JobPhase.RUNNING:
            return False
        # Revisions compare within one lead only.
        changed = (directive.lead, directive.generation) != (then.lead, then.generation)
        return changed or directive.revision > then.revision

    def _await_end(self, session: Session, result: LoopResult) -> LoopResult:
        """Let a worker that was granted no more wait until the job ends, or goes on."""
        while result.stopped and not session.stop_requested:
            told = self._attendance.wait_for(
                lambda one: (
                    one.verdict is not None or session.stop_requested or self._may_go_on(one)
                ),
                "the job to end",
            )
            if told.verdict is not None or session.stop_requested:
                break
            result = self._end(session.resume())
        for hook in self._hooks:
            hook.end(session)
        return result
