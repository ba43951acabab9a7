"""Tools and environments by their names; see `cohort.environments.world`."""

from cohort.environments.world import build_environment as build_environment
from cohort.environments.world import build_tools as build_tools
