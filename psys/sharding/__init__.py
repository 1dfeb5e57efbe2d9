"""How a model is spread over shards: cut into slices of rows, placed, split and joined."""

from psys.sharding.description import describe, planned_slices
from psys.sharding.partitioner import Slice
from psys.sharding.shard_map import ShardMap, plan

__all__ = ["ShardMap", "Slice", "describe", "plan", "planned_slices"]
