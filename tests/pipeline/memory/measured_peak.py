"""Makes a picture within a limit in a process of its own, and prints what each stage was to take and took, as JSON:
bytes of anonymous memory (RssAnon), imports and all.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.pipeline.memory.limit import parse_limit
from pixart_sigma.pipeline.memory.machine import own_bytes
from pixart_sigma.pipeline.memory.run import Setup, carry_out, plan_generation
from pixart_sigma.pipeline.request import Request
from pixart_sigma.weights.folder import find_pipeline

CPU = torch.device("cpu")


def main(model: str, prompt: str, limit: str, options: dict[str, Any], request: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    setup = Setup(find_pipeline(model if model == "pocket" else Path(model)), **options)
    asked = Request((prompt,), **request)
    plan = plan_generation(setup, asked, parse_limit(limit))
    peaks = {"before": own_bytes(CPU)}
    stage = "text"
    done = False

    def watch() -> None:
        while not done:
            peaks[stage] = max(peaks.get(stage, 0), own_bytes(CPU))
            time.sleep(0.002)

    def begin(name: str) -> None:
        nonlocal stage
        stage = name

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = carry_out(plan, setup, asked, on_stage=begin)
    done = True
    watcher.join()
    print(
        json.dumps(
            {
                "predicted": {each.stage: each.num_bytes for each in plan.stages},
                "measured": peaks,
                "how": {each.stage: each.how for each in plan.stages},
                "staged": plan.staged,
                "size": result.images[0].size,
            }
        )
    )


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
