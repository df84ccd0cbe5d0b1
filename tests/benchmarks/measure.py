"""Times and counts of one training step's update, from the compiler and the clock."""

import contextlib
import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tests.benchmarks.targets import Target
from tests.benchmarks.trees import PyTree, leaves, nbytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What can be counted or timed without running the step.

    Attributes:
      trace: seconds of processor time, as `lower` and `compile`.
      kernels: fusions in the compiled text.
      bytes_accessed: a step, as the compiler counts them; `None` if it does not.
      temporary_bytes: memory besides arguments and results; `None` if unknown.
      state_leaves: arrays in the optimizer's state.
      state_bytes: their size.
    """

    trace: float
    lower: float
    compile: float
    kernels: int
    bytes_accessed: float | None
    temporary_bytes: int | None
    state_leaves: int
    state_bytes: int

    @property
    def until_it_runs(self) -> float:
        return self.trace + self.lower + self.compile


def train_step(tx: optax.GradientTransformation) -> Callable[..., Any]:
    """The whole update of a training loop, without the gradients."""

    def step(params: PyTree, state: Any, gradients: PyTree) -> tuple[PyTree, Any]:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def compiled_step(
    tx: optax.GradientTransformation,
    tree: PyTree,
    target: Target | None = None,
    **options: Any,
) -> tuple[Any, Cost]:
    """The step compiled for a tree of shapes, with parameters and state donated.

    Args:
      tx: an optimizer that has not been used yet.
      tree: the shapes of the parameters.
      target: the machine to compile for; this one if `None`.
      options: for `jax.stages.Lowered.compile`.
    """
    state = jax.eval_shape(tx.init, tree)
    platforms = None
    if target is not None:
        tree, state = target.placed((tree, state))
        platforms = (target.platform,)
    jitted = jax.jit(train_step(tx), donate_argnums=(0, 1))
    return compiled_for(platforms, jitted, tree, state, tree, **options)


def compiled_for(
    platforms: tuple[str, ...] | None, jitted: Any, *arguments: Any, **options: Any
) -> tuple[Any, Cost]:
    """A function compiled for its arguments' shapes; the second is the state."""
    with no_collection():
        start = processor_seconds()
        traced = jitted.trace(*arguments)
        after_trace = processor_seconds()
        lowered = traced.lower(lowering_platforms=platforms)
        after_lower = processor_seconds()
        compiled = lowered.compile(**options)
        after_compile = processor_seconds()
    cost: Any = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    memory = compiled.memory_analysis()
    return compiled, Cost(
        trace=after_trace - start,
        lower=after_lower - after_trace,
        compile=after_compile - after_lower,
        kernels=(compiled.as_text() or "").count(" fusion("),
        bytes_accessed=cost.get("bytes accessed"),
        temporary_bytes=getattr(memory, "temp_size_in_bytes", None),
        state_leaves=len(jax.tree.leaves(arguments[1])),
        state_bytes=nbytes(arguments[1]),
    )


def processor_seconds() -> float:
    """Of this process and of those that it has started: the compiler of GPUs does."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


@contextlib.contextmanager
def no_collection() -> Generator[None]:
    """Without the garbage collector, which reads what all contenders have left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def compiled_steps(
    makes: Mapping[str, Callable[[PyTree], Any]], tree: PyTree, repeats: int
) -> dict[str, tuple[Any, Cost]]:
    """Each optimizer's compiled step, its counts, and the medians of its times."""
    compiled_step(optax.adam(1e-3), leaves(2, 2))  # What only a first time costs.
    found: dict[str, list[tuple[Any, Cost]]] = {name: [] for name in makes}
    for _ in range(repeats):
        for name, make in makes.items():
            found[name].append(compiled_step(make(tree), tree))
    return {
        name: (each[0][0], _with_medians([cost for _, cost in each]))
        for name, each in found.items()
    }


def _with_medians(costs: list[Cost]) -> Cost:
    times = ("trace", "lower", "compile")
    medians = {t: statistics.median(getattr(cost, t) for cost in costs) for t in times}
    return dataclasses.replace(costs[0], **medians)


def interleaved(
    steps: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each step in each round; all in turn, so that drift hits all alike."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        names = list(steps)
        for name in names if index % 2 else reversed(names):
            start = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: list[float], to: list[float]) -> tuple[float, float, float]:
    """The median and the quartiles of the ratio within a round."""
    each = sorted(a / b for a, b in zip(seconds, to, strict=True))
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return middle, low, high


def copy_step(elements: int) -> Callable[[], Any]:
    """A step that reads and writes an array: what the memory can do."""
    array = jnp.zeros(elements, jnp.float32)
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)

    def step() -> None:
        nonlocal array
        array = jax.block_until_ready(add_one(array))

    return step


def running(compiled: Any, params: PyTree, state: Any, gradients: PyTree) -> Any:
    """A step that carries its parameters and its state along."""

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(compiled(params, state, gradients))

    return step


def best(function: Callable[[], Any], times: int) -> float:
    """The shortest of several times, in seconds of processor time."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)
