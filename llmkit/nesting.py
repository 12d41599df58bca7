"""Event loops within event loops, for a notebook whose own code calls ``asyncio.run`` in a cell. llmkit needs it nowhere."""

from __future__ import annotations

import asyncio

from .errors import ConfigError, MissingExtra

__all__ = ["allow_nested_loops"]


def allow_nested_loops() -> None:
    """Let your own code call ``asyncio.run`` or ``loop.run_until_complete`` in a cell, where a loop runs already.

    Never done by itself, and never needed for llmkit: its calls work in any cell as they are. Wherever the code can be changed, ``await
    main()`` in the cell is the better way.

    What is patched, in this process and until it ends, is said when it is done: ``asyncio.run``, ``asyncio.get_event_loop``, asyncio's
    tasks and futures (before Python 3.14 those in Python take the place of those in C), and every loop of the running loop's class,
    llmkit's own included, which then takes somewhat more time for each request.

    Raises
    ------
    MissingExtra
        nest-asyncio2 is not installed.
    ConfigError
        The loop that runs is none of asyncio's own, such as uvloop's, or nest_asyncio (without the 2) has patched it already.

    Examples
    --------
    >>> import llmkit
    >>> llmkit.allow_nested_loops()
    llmkit: no event loop runs here, so asyncio.run works as it is; nothing was patched
    """
    try:
        import nest_asyncio2
    except ImportError:
        raise MissingExtra("nested loops need the package nest-asyncio2: pip install 'llmkit[nest]'") from None
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        print("llmkit: no event loop runs here, so asyncio.run works as it is; nothing was patched")  # noqa: T201 - said to a person at a keyboard
        return
    kind = type(loop)
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise ConfigError(
            f"the loop that runs here is {kind.__module__}.{kind.__name__}, and only asyncio's own loops can be nested. "
            "Start the kernel without uvloop.install(), or write `await main()` in place of `asyncio.run(main())`"
        )
    try:
        nest_asyncio2.apply(loop, error_on_mispatched=True)
    except RuntimeError:
        raise ConfigError(
            "nest_asyncio has patched asyncio in this process already, and the two do not go together; restart without its apply()"
        ) from None
    print(  # noqa: T201 - said to a person at a keyboard
        f"llmkit: asyncio.run, asyncio.get_event_loop, asyncio's tasks and futures and all loops of {kind.__name__} are patched "
        "by nest-asyncio2, until this process ends"
    )
