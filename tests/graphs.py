"""What torch's compiler makes of a function."""

from collections.abc import Callable
from typing import Any

import torch


def compiled_in_graphs(function: Callable[..., Any]) -> tuple[Any, list[str]]:
    """The function, compiled whole, and the code of the graphs that its calls will have made."""
    graphs: list[str] = []

    def remember(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(str(graph.code))
        return graph

    return torch.compile(function, backend=remember, fullgraph=True), graphs
