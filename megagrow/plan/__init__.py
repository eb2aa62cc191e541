"""What a run will do and cost, computed before it starts."""

from megagrow.plan.hardware import Hardware, parse_hardware
from megagrow.plan.schedule import RunPlan, StagePlan, make_plan

__all__ = ["Hardware", "RunPlan", "StagePlan", "make_plan", "parse_hardware"]
