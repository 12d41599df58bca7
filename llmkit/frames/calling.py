"""What every method of ``df.llm`` ends in: a route, a plan, and a run, an estimate or a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..run import Run
from ..session import Session, default
from ..types import Operation, Policy, Request, Table
from .estimates import nothing

__all__ = ["Accessor", "How", "sample_of"]


#: Whose default model serves an operation that has none of its own.
_DEFAULT = {"embed_images": "embed"}


@dataclass(frozen=True, slots=True)
class How:
    """How a call is to be carried out, whatever it asks."""

    model: Any
    fallback: Any
    policy: Policy
    dry_run: bool
    show_progress: bool
    wait: bool
    context_fallback: Any = None
    content_fallback: Any = None
    batch: bool = False


def sample_of(request: Any, number: int) -> Any:
    """The same question for another answer, stored apart; the first one, of number 0, is the question itself."""
    if not number or not isinstance(request, Request):
        return request
    # Where the caller fixed a seed, equal ones would make equal samples.
    seed = request.options.get("seed")
    options = request.options if seed is None else {**request.options, "seed": seed + number}
    return replace(request, sample=number, options=options)


class Accessor:
    """What the accessors of frames and series share."""

    _frame: Any

    def __init__(self, session: Session | None = None) -> None:
        self._own_session = session

    @property
    def _session(self) -> Session:
        return self._own_session or default()

    def _on_cluster(self, cluster: Any, method: str, said: Mapping[str, Any]) -> Any:
        """Have a Dask cluster carry a call out: ``said`` are the arguments of the method, as its ``locals()`` has them."""
        from ..scale.dask import on_cluster

        arguments = {name: value for name, value in said.items() if name not in ("self", "cluster")}
        return on_cluster(self._frame, cluster, session=self._own_session)._carry_out(method, arguments)

    def _run(
        self,
        operation: Operation,
        table: Table,
        arguments: Mapping[str, Any],
        shape: Any,
        how: How,
    ) -> Any:
        """Carry a call out. Arguments are checked before anybody is asked; no row, no question."""
        session = self._session
        operation.tasks(table, **arguments)  # checks its arguments; nothing is drawn yet
        if not len(table):
            return _nothing(operation, shape, how, session)
        model, note = (how.model, "") if how.model is not None else session.chosen(_DEFAULT.get(operation.codec, operation.codec))
        route = session.route(model, operation, how.fallback, how.context_fallback, how.content_fallback)
        session.check_options(route, arguments.get("options") or {})
        stepped = session.check_form(route, arguments.get("schema"))
        if how.batch:
            route = session.in_jobs(route, operation)
        arguments = shape.prepared(route, arguments)
        plan = session.plan(operation, len(table), lambda: operation.tasks(table, **arguments), route, how.policy)
        if how.dry_run:
            return session.estimate_jobs(plan) if how.batch else session.estimate(plan)
        if stepped:
            plan.outcomes.notes.append(stepped)
        if how.batch:
            from .jobs import submitted

            return submitted(session, plan, arguments, shape, how, note)
        try:
            run = session.start(plan, shape, show_progress=how.show_progress, note=note)
            return run.result() if how.wait else run
        except KeyboardInterrupt:
            session.stop(plan)  # also where it fell between the two
            raise


def _nothing(operation: Operation, shape: Any, how: How, session: Session) -> Any:
    """The result of a call on no rows: right in shape and dtype, and nobody is asked, so no model is needed either."""
    plan = session.plan(operation, 0, lambda: iter(()), (), Policy())
    if how.dry_run:
        return nothing("there are no rows")
    run: Run[Any] = Run(
        id=plan.run_id,
        operation=operation.name,
        targets=("nobody",),
        prices=(),
        outcomes=plan.outcomes,
        shape=shape,
        show_progress=False,
    )

    async def work() -> None:
        return None

    run.begin(work)
    return run.result() if how.wait and not how.batch else run
