"""Summaries for TensorBoard."""

from psys.summary.writer import SummaryWriter

__all__ = ["SummaryWriter"]
