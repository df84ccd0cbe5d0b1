"""A name gets its value."""

from optax_lrmult.core.assignment import Assignment as Assignment, assign as assign
from optax_lrmult.core.columns import groups as groups
from optax_lrmult.core.names import path_labels as path_labels
from optax_lrmult.core.patterns import glob as glob, prefix as prefix
from optax_lrmult.core.rules import Rule as Rule, Rules as Rules
from optax_lrmult.core.values import per_layer as per_layer
